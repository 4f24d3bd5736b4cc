"""Optional arguments that are ``null``: models write them, and to MCP they are the same as arguments that are left out.

Owns what a schema says of them. Servers that check their arguments refuse ``null`` where they expect text or a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PARTS = 64  # of one schema that are looked at


def without_nulls(args: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Leave out what is ``null`` and not required. What the schema does not speak of, it may mean: that stays."""
    nulls = {name for name, value in args.items() if value is None}
    if not nulls:
        return dict(args)
    parts = list(_parts(schema))
    required = {name for part in parts for name in _texts(part.get("required"))}
    closed = any(part.get("additionalProperties") is False for part in parts)
    known = nulls if closed else {name for part in parts for name in _keys(part.get("properties")) if name in nulls}
    return {name: value for name, value in args.items() if name not in nulls or name not in known - required}


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Give a schema and those that hold beside it for the same value: by a reference within it, or ``allOf``."""
    ahead, count = [schema], 0
    while ahead and count < _PARTS:
        part = ahead.pop()
        count += 1
        if not isinstance(part, dict):
            continue
        yield part
        if isinstance(reference := part.get("$ref"), str):
            ahead.append(_at(schema, reference))
        if isinstance(every := part.get("allOf"), list):
            ahead += every[:_PARTS]


def _at(schema: Any, reference: str) -> Any:
    """Give the part that a reference like ``#/$defs/name`` names, or ``None``."""
    start, *names = reference.split("/", 8)
    for name in names:
        schema = schema.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema if start == "#" else None


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []
