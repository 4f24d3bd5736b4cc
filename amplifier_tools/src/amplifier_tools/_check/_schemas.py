"""JSON Schemas: those of the protocol, which the kernel ships, and those of a module's own description.

Owns the validation. Nothing is fetched: a reference that leads elsewhere does not resolve.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
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


def misfit(reference: str, value: object) -> str:
    """Say in one line how a value misses a schema of the protocol, ``name`` or ``name#/pointer``; "" if it fits."""
    return _say(best_match(_validator(reference).iter_errors(value)))


def schema_fault(schema: object) -> str:
    """Say in one line why a schema of a module is no JSON Schema of draft 2020-12; "" if it is one."""
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    if dialect is not None and str(dialect).rstrip("#") != Draft202012Validator.META_SCHEMA["$id"]:
        return f"$schema is {line_of(str(dialect), _SHOWN)}"
    try:
        Draft202012Validator.check_schema(schema)  # it knows true and false, too
    except SchemaError as error:
        return _say(error)
    return ""


def own_misfit(schema: object, value: object) -> str:
    """Say in one line how a value misses a module's own schema; "" if it fits. The schema has no fault."""
    try:
        return _say(best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value)))
    except Unresolvable as error:
        return f"the schema refers to what is not in it: {line_of(str(error), _SHOWN)}"
    except RecursionError:
        return "the schema refers to itself without end"


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
