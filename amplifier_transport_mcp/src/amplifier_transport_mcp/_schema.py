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

_STEPS = 10_000  # keywords that one check looks at: some 25 ms
_DEPTH = 64  # keywords inside each other: some 400 frames. Beyond Python's limit, the library ends in no Exception
_A_STEP = 4  # values that cost as much as a step: one that does not fit is written into an error
_TEXT = 256  # characters that cost as much as a value
_FAULT = 10  # steps that an error costs
_DEEP = ("enum", "const")  # keywords that are compared with a value as a whole
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_SEARCH = 8  # the library looks through the whole schema for each id or anchor, at so much a value
_UNBOUNDED = ("pattern", "patternProperties", "uniqueItems", "unevaluatedProperties", "unevaluatedItems")
_WIDTH = 200  # characters of a fault


class _EnoughError(Exception):
    """The check has used up its steps."""


class Schemas:
    """Makes checks that share one count of steps; one check runs at a time."""

    def __init__(self) -> None:
        self._left = 0
        self._depth = 0
        self._schema: Any = None  # that of the check that runs
        self._dialects: dict[Any, Any] = {}

    def check(self, schema: Any) -> Callable[[Any, str], str]:
        """Make a check of (value, its name), which gives the first fault in one line, or an empty text.

        A malformed schema finds no fault: its server knows what it means. References to other documents are not
        followed.
        """

        def check(value: Any, name: str) -> str:
            self._left, self._depth = _STEPS, 0
            self._schema = schema
            try:
                error = next(self._validator(schema).iter_errors(value), None)
            except Exception:  # noqa: BLE001 - the schema may be malformed in any way, or the steps are used up
                return ""
            return "" if error is None else _fault(error, name)

        return check

    def _validator(self, schema: Any) -> Any:
        dialect = validator_for(schema, default=Draft202012Validator)
        if dialect not in self._dialects:
            self._dialects[dialect] = self._bounded(dialect)
        return self._dialects[dialect](schema, registry=referencing.Registry())

    def _bounded(self, dialect: Any) -> Any:
        keywords = {name: self._counted(keyword, name) for name, keyword in dialect.VALIDATORS.items()}
        keywords |= dict.fromkeys(_UNBOUNDED, _left_to_the_server)
        keywords["additionalProperties"] = _without_patterns(keywords["additionalProperties"])
        return extend(dialect, keywords)

    def _counted(self, keyword: Callable[..., Iterator[Any] | None], name: str) -> Callable[..., Any]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._spend(1 + (self._cost(name, value) + self._size(instance)) // _A_STEP)
            self._depth += 1
            try:
                for error in keyword(validator, value, instance, schema) or ():
                    self._spend(_FAULT)
                    yield error
            finally:  # some keywords ask for the first error alone
                self._depth -= 1

        return counted

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0 or self._depth >= _DEPTH:
            raise _EnoughError

    def _cost(self, keyword: str, value: Any) -> int:
        """Give what a keyword with that value costs, without what it says of an instance."""
        if keyword in _DEEP:
            return self._size(value)
        if keyword in _REFERENCES and isinstance(value, str):
            search = 0 if value == "#" or value.startswith("#/") else _SEARCH * self._size(self._schema)
            return search + len(value) // _SEARCH
        return _length(value)

    def _size(self, value: Any) -> int:
        """Count the values in a value, as far as there are steps for them."""
        ahead, size, enough = [value], 0, self._left * _A_STEP
        while ahead and size <= enough:
            each = ahead.pop()
            size += _length(each)
            if isinstance(each, dict):
                ahead += each.values()
            elif isinstance(each, list):
                ahead += each
        return size


def _length(value: Any) -> int:
    """Give what it costs to look at a value, but not into it."""
    if isinstance(value, str):
        return 1 + len(value) // _TEXT
    return 1 + len(value) if isinstance(value, dict | list) else 1


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
