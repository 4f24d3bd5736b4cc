"""Checks of values against a server's JSON Schema, in bounded time.

Owns the bound. The check runs on the embedder's event loop, and a schema of a few lines can take endless work: a
regular expression alone can. So keywords without a bound are left to the server, which checks its input itself. The
rest of a check is left to it too, after a number of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import referencing
from jsonschema import Draft202012Validator
from jsonschema.validators import extend, validator_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEPS = 20_000  # keywords that one check looks at: some 50 ms
_UNBOUNDED = ("pattern", "patternProperties", "uniqueItems", "unevaluatedProperties", "unevaluatedItems")
_WIDTH = 200  # characters of a fault


class _EnoughError(Exception):
    """The check has used up its steps."""


class Schemas:
    """Makes checks that share one count of steps; one check runs at a time."""

    def __init__(self) -> None:
        self._left = 0
        self._dialects: dict[Any, Any] = {}

    def check(self, schema: Any) -> Callable[[Any, str], str]:
        """Make a check of (value, its name), which gives the first fault in one line, or an empty text.

        A malformed schema finds no fault: its server knows what it means. References to other documents are not
        followed.
        """
        dialect = validator_for(schema, default=Draft202012Validator)
        if dialect not in self._dialects:
            self._dialects[dialect] = self._bounded(dialect)
        validator = self._dialects[dialect](schema, registry=referencing.Registry())

        def check(value: Any, name: str) -> str:
            self._left = _STEPS
            try:
                error = next(validator.iter_errors(value), None)
            except Exception:  # noqa: BLE001 - the schema may be malformed in any way, or the steps are used up
                return ""
            return "" if error is None else _fault(error, name)

        return check

    def _bounded(self, dialect: Any) -> Any:
        keywords = {name: self._counted(keyword) for name, keyword in dialect.VALIDATORS.items()}
        keywords |= dict.fromkeys(_UNBOUNDED, _left_to_the_server)
        keywords["additionalProperties"] = _without_patterns(keywords["additionalProperties"])
        return extend(dialect, keywords)

    def _counted(self, keyword: Callable[..., Iterator[Any] | None]) -> Callable[..., Any]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise _EnoughError
            return keyword(validator, value, instance, schema)

        return counted


def _left_to_the_server(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> None:
    """Find no fault."""


def _without_patterns(keyword: Callable[..., Any]) -> Callable[..., Any]:
    """Leave ``additionalProperties`` to the server if it depends on regular expressions."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return None if "patternProperties" in schema else keyword(validator, value, instance, schema)

    return check


def _fault(error: Any, name: str) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    text = f"{name}{where}: {error.message}".replace("\n", " ")
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
