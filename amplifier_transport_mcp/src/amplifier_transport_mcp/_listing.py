"""The tools of a server as it lists them, page by page, and what is wrong with some.

Owns the bounds of the list and of each tool. One flawed tool does not take the others away.
"""

from __future__ import annotations

from typing import Any

from ._codes import broke_contract
from ._messages import NAME_MAX, has_more_values
from ._tools import METHODS

PAGES = 1000
"""Pages of one listing at most: a server may never end it."""
_TOOLS = 4096
_SCHEMA = 10_000  # values of one schema
_CURSOR = 4096  # characters
_FLAWED = 100  # tools of which is told what is wrong
_HEADER = "x-mcp-header"
_LAST = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


class Listing:
    """One listing. ``limit`` is how many bytes all its pages may have together."""

    def __init__(self, limit: int) -> None:
        self.tools: list[dict[str, Any]] = []
        self.flawed: dict[str, str] = {}
        """What is wrong with a tool, by its name."""
        self.cursor: str | None = None
        """Of the next page."""
        self._limit = limit
        self._left = limit
        self._cursors: set[str] = set()
        self._shown: set[str] = set()  # of the last page
        self._names: set[str] = set()

    @property
    def size(self) -> int:
        """How many bytes there were so far: those of the pages, and the descriptions once more."""
        return self._limit - self._left

    def show(self, page: dict[str, Any], size: int) -> dict[str, Any]:
        """Take one page, and give what the SDK has to see of it: tools whose arguments it puts into headers."""
        self._spend(size)
        tools = page.get("tools")
        if not isinstance(tools, list):
            raise _broke("tools: expected a list")
        if len(self.tools) + len(tools) > _TOOLS:
            raise _broke(f"more than {_TOOLS} tools")
        self.cursor = self._next(page)
        shown = []
        for n, tool in enumerate(tools):
            if why := _flaw(tool):
                self._leave_out(tool, n, why)
                continue
            if why := self._conflict(tool["name"]):
                self._leave_out(None, n, why)
                continue
            self._names.add(tool["name"])
            self.tools.append({key: value for key, value in tool.items() if value is not None})
            self._spend(len(tool.get("description") or ""))  # a description of the module has it twice
            if _has(tool["inputSchema"], _HEADER):
                shown.append({"name": tool["name"], "inputSchema": tool["inputSchema"]})
        self._shown = {tool["name"] for tool in shown}
        return {"tools": shown, **_LAST}

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _broke(f"its pages have more than {self._limit} bytes (limits.message_bytes)")

    def _next(self, page: dict[str, Any]) -> str | None:
        cursor = page.get("nextCursor")
        if cursor is None:
            return None
        if not isinstance(cursor, str) or len(cursor) > _CURSOR:
            raise _broke(f"nextCursor: expected text of at most {_CURSOR} characters")
        if cursor in self._cursors:
            raise _broke("nextCursor: it had been there before")
        if len(self._cursors) + 1 >= PAGES:
            raise _broke(f"more than {PAGES} pages")
        self._cursors.add(cursor)
        return cursor

    def keep(self, names: set[str]) -> None:
        """Leave out the tools of the last page that were shown, but which the SDK has not kept."""
        dropped = self._shown - names
        self.flawed |= dict.fromkeys(dropped, f"inputSchema: a wrong {_HEADER}")
        self.tools = [tool for tool in self.tools if tool["name"] not in dropped]

    def _conflict(self, name: str) -> str:
        """Say why there can be no tool of that name."""
        if name in METHODS:
            return f"name: {name!r} is that of a method of MCP"
        return f"name: {name!r} is that of another tool" if name in self._names else ""

    def _leave_out(self, tool: object, n: int, why: str) -> None:
        name = tool.get("name") if isinstance(tool, dict) else None
        if len(self.flawed) < _FLAWED:
            self.flawed[name[:NAME_MAX] if isinstance(name, str) else f"tools[{n}]"] = why


def _flaw(tool: object) -> str:
    """Say what is wrong with a tool."""
    if not isinstance(tool, dict):
        return "expected an object"
    if not isinstance(name := tool.get("name"), str) or not 0 < len(name) <= NAME_MAX:
        return f"name: expected text of 1 to {NAME_MAX} characters"
    if not isinstance(tool.get("description") or "", str):
        return "description: expected text"
    if (fault := _flaw_of_schema(tool.get("inputSchema"))) != "":
        return f"inputSchema: {fault}"
    if tool.get("outputSchema") is not None and (fault := _flaw_of_schema(tool["outputSchema"])):
        return f"outputSchema: {fault}"
    rest = {key: value for key, value in tool.items() if key not in ("inputSchema", "outputSchema")}
    return f"more than {_SCHEMA} values" if has_more_values(rest, _SCHEMA) else ""


def _flaw_of_schema(schema: object) -> str:
    if not isinstance(schema, dict):
        return "expected an object"
    return f"expected at most {_SCHEMA} values" if has_more_values(schema, _SCHEMA) else ""


def _has(value: Any, key: str) -> bool:
    """Tell whether there is a key anywhere in a value."""
    ahead = [value]
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            if key in each:
                return True
            ahead += each.values()
        elif isinstance(each, list):
            ahead += each
    return False


def _broke(why: str) -> Any:
    return broke_contract("tools/list", why)
