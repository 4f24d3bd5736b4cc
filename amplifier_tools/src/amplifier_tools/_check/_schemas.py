"""JSON Schemas: those of the protocol, which the kernel ships, and those of a module's own description.

Owns the validation. Nothing is fetched: a reference that leads elsewhere does not resolve.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from amplifier_core.hookspecs import decode
from amplifier_tools._text import line_of

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

__all__ = ["misfit", "own_misfit", "schema_fault"]

_URN = "urn:amplifier:protocol:1:"
_SHOWN = 200  # characters
_DEFAULT = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS: dict[str, Any] = {
    _DEFAULT: Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
}


def misfit(reference: str, value: object) -> str:
    """Say in one line how a value misses a schema of the protocol, ``name`` or ``name#/pointer``; "" if it fits."""
    return _say(best_match(_validator(reference).iter_errors(value)))


def schema_fault(schema: object) -> str:
    """Say in one line why a schema of a module is none of its dialect; "" if it is one, or names another dialect."""
    dialect = None if isinstance(schema, bool) else _dialect(schema)  # true and false are schemas, too
    try:
        if dialect is not None:
            dialect.check_schema(schema)
    except SchemaError as error:
        return _say(error)
    return ""


def own_misfit(schema: object, value: object) -> str:
    """Say in one line how a value misses a module's own schema; "" if it fits. The schema has no fault."""
    dialect = _dialect(schema)
    try:
        return "" if dialect is None else _say(best_match(dialect(schema, registry=Registry()).iter_errors(value)))
    except Unresolvable as error:
        return f"the schema refers to what is not in it: {line_of(str(error), _SHOWN)}"
    except RecursionError:
        return "the schema refers to itself without end"


def _dialect(schema: object) -> Any:
    """Give the validator of a schema's dialect; ``None`` for one that is not known here."""
    named = schema.get("$schema", _DEFAULT) if isinstance(schema, dict) else _DEFAULT
    return _DIALECTS.get(named.rstrip("#")) if isinstance(named, str) else Draft202012Validator


def _say(error: ValidationError | SchemaError | None) -> str:
    if error is None:
        return ""
    return f"{line_of(error.json_path, _SHOWN)}: {line_of(error.message, _SHOWN)}"


@functools.cache
def _registry() -> Registry[Any]:
    folder = files("amplifier_core") / "schemas"
    shipped = [decode(file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".json")]
    return Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema, default_specification=DRAFT202012)) for schema in shipped
    )


@functools.cache
def _validator(reference: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": _URN + reference}, registry=_registry())
