"""The operations of a module, as people read them: names, descriptions, and what each takes.

Owns the page. What it shows was verified by the kernel, and is foreign text all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from amplifier_tools._text import json_line, line_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

__all__ = ["page_of"]

_INPUTS_MAX = 100
_TYPE_MAX = 40  # characters


def page_of(description: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Give the parts of the page from what ``describe`` said (protocol, section 2)."""
    title = " ".join(_said(description.get(name)) for name in ("name", "version", "kind"))
    yield Text(title, "bold")
    if words := description.get("capabilities"):
        yield Text(f"capabilities: {', '.join(map(_said, words))}", "dim")
    for op, schema in description["inputs"].items():
        yield Text(f"\n{_said(op)}  ", "bold cyan").append(_said(_of(schema, "description")), "not bold default")
        if rows := _rows(schema):
            yield Padding(rows, (0, 0, 0, 4))
    for op, reason in (description.get("flawed") or {}).items():
        yield Text(f"\n{_said(op)}  cannot be called: {_said(reason)}", "red")


def _rows(schema: object) -> Table | None:
    """Make a row of each input: its name, its type, whether it is required, and its description."""
    inputs, required = _of(schema, "properties"), _of(schema, "required")
    if not isinstance(inputs, Mapping) or not inputs:
        return None
    table = Table.grid(padding=(0, 2))
    for name, each in islice(inputs.items(), _INPUTS_MAX):
        needed = "required" if isinstance(required, list) and name in required else _default_of(each)
        cells = (_said(name), _type_of(each), needed, _said(_of(each, "description")))
        table.add_row(*map(Text, cells))
    if len(inputs) > _INPUTS_MAX:
        table.add_row(Text(f"… {len(inputs) - _INPUTS_MAX} more"))
    return table


def _type_of(schema: object) -> str:
    for name in ("type", "enum", "const", "$ref", "anyOf", "oneOf"):
        if (found := _of(schema, name)) is not None:
            return _said(found if isinstance(found, str) else json_line(found))[:_TYPE_MAX]
    return "any"


def _default_of(schema: object) -> str:
    default = isinstance(schema, Mapping) and "default" in schema
    return f"default {line_of(json_line(_of(schema, 'default')), _TYPE_MAX)}" if default else ""


def _of(schema: object, name: str) -> Any:
    return schema.get(name) if isinstance(schema, Mapping) else None


def _said(text: object) -> str:
    return line_of(text) if isinstance(text, str) else ""
