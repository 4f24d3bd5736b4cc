"""The form of a JSON Schema of 2020-12: what each keyword has to be (protocol, section 2).

Owns that form. It holds no value against a schema, follows no reference and compiles no pattern.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import path_of, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

VALUES_MAX = 10_000
"""The most keywords, names and subschemas of one schema: some 10 ms."""

_PART_MAX = 256  # characters of a name in a path


def find_flaws(described: dict[str, Any], flaws: dict[str, str]) -> Iterator[None]:
    """Name in ``flaws`` the ops whose schema is none, with the reason. Yields after each schema, to let others run.

    Only the form is looked at: the types of keywords, and the schemas inside. A schema in another dialect than that of
    2020-12 is not looked at.
    """
    for field in ("inputs", "outputs"):
        for op, schema in described[field].items():
            if fault := _fault_of_schema(schema):
                flaws.setdefault(op, f"{field}: {fault}")
            yield


def _fault_of_schema(schema: Any) -> str:
    """Say what is wrong with the form of a schema, "" if nothing is."""
    ahead: list[tuple[Any, _Place]] = [(schema, None)]
    seen = 0
    while ahead:
        each, place = ahead.pop()
        seen += 1 + (len(each) if isinstance(each, dict) else 0)
        if isinstance(each, bool) or (isinstance(each, dict) and not _is_ours(each)):
            continue
        if not isinstance(each, dict):
            return f"{_shown(place)}: expected a JSON Schema, got {short(each)}"
        for word, value in each.items():
            expected, fits, below = _KEYWORDS.get(word, _UNKNOWN)
            seen += len(value) if isinstance(value, dict | list) else 0
            if seen > VALUES_MAX:
                return f"$: expected at most {VALUES_MAX} keywords and values"
            if not fits(value):
                return f"{_shown((place, word))}: expected {expected}, got {short(value)}"
            ahead += [(inner, (place, *parts)) for inner, *parts in below(word, value)]
    return ""


_Place = Any  # the place of the schema around, and the parts of the path from there; None at the root


def _shown(place: _Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, *path = place
        parts += [f"[{part}]" if isinstance(part, int) else f".{part[:_PART_MAX]}" for part in reversed(path)]
    return path_of("$" + "".join(reversed(parts)))


def _is_ours(schema: dict[str, Any]) -> bool:
    dialect = schema.get("$schema")
    return not isinstance(dialect, str) or dialect.rstrip("#") == _DIALECT


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_type(value: Any) -> bool:
    return _is_text(value) and value in _TYPES


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _nothing(_word: str, _value: Any) -> Iterable[tuple[Any, ...]]:
    return ()


def _itself(word: str, value: Any) -> Iterable[tuple[Any, ...]]:
    return [(value, word)]


def _items(word: str, value: Any) -> Iterable[tuple[Any, ...]]:
    return [(inner, word, n) for n, inner in enumerate(value)]


def _members(word: str, value: Any) -> Iterable[tuple[Any, ...]]:
    return [(inner, word, name) for name, inner in value.items()]


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_Keyword = tuple[str, "Callable[[Any], bool]", "Callable[[str, Any], Iterable[tuple[Any, ...]]]"]
_UNKNOWN: _Keyword = "", lambda _: True, _nothing
_FORMS: dict[str, _Keyword] = {
    "additionalProperties contains contentSchema else if items not propertyNames then unevaluatedItems"
    " unevaluatedProperties": ("a JSON Schema", _is_schema, _itself),
    "allOf anyOf oneOf prefixItems": (
        "a list of JSON Schemas that is not empty",
        lambda value: _is_list(value) and bool(value),
        _items,
    ),
    "$defs definitions dependentSchemas patternProperties properties": (
        "an object of JSON Schemas",
        _is_object,
        _members,
    ),
    "type": (
        f"one of {', '.join(_TYPES)}, or a list of them",
        lambda value: _is_type(value) or (_is_list(value) and bool(value) and all(map(_is_type, value))),
        _nothing,
    ),
    "enum examples": ("a list", _is_list, _nothing),
    "required": ("a list of text", lambda value: _is_list(value) and all(map(_is_text, value)), _nothing),
    "dependentRequired": (
        "an object of lists",
        lambda value: _is_object(value) and all(map(_is_list, value.values())),
        _nothing,
    ),
    "exclusiveMaximum exclusiveMinimum maximum minimum": ("a number", _is_number, _nothing),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0, _nothing),
    "maxContains maxItems maxLength maxProperties minContains minItems minLength minProperties": (
        "a whole number from 0",
        lambda value: _is_number(value) and value >= 0 and value == int(value),
        _nothing,
    ),
    "deprecated readOnly uniqueItems writeOnly": ("true or false", lambda value: isinstance(value, bool), _nothing),
    "$anchor $comment $dynamicAnchor $dynamicRef $id $ref $schema contentEncoding contentMediaType description format"
    " pattern title": ("text", _is_text, _nothing),
}
_KEYWORDS = {word: form for words, form in _FORMS.items() for word in words.split()}
