"""The result of a call: what the SDK sees of it, and whether it has the shape that MCP says.

Owns these few checks. The SDK's models would look at everything, at 25 µs for each block, and write all that is wrong
into an error. What is deeper stays as the server wrote it.
"""

from __future__ import annotations

from typing import Any

from ._codes import broke_contract
from ._tools import METHODS

INPUT_REQUIRED = "input_required"
_WHOLE = "x-whole"
_COMPLETE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}  # of a result of 2026
_ASKED = 1000  # inputs that one result may require


def show(method: str, result: dict[str, Any], _size: int) -> dict[str, Any]:
    """Make a result of that method without content, for the SDK's models; the whole one is inside."""
    return {_list_of(method): [], **_COMPLETE, _WHOLE: result}


def whole(shown: dict[str, Any]) -> dict[str, Any]:
    """Give the result that was shown."""
    result: dict[str, Any] = shown[_WHOLE]
    return result


def check(method: str, result: dict[str, Any], what: str) -> None:
    """Raise ``Internal`` for a result of the wrong shape."""
    if result.get("resultType") == INPUT_REQUIRED:
        _check_inputs(result, what)
        return
    key = _list_of(method)
    content = result.get(key)
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise broke_contract(what, f"{key}: expected a list of objects")
    for block in content if key == "content" else ():
        kind = block.get("type")
        if not isinstance(kind, str) or (kind == "text" and not isinstance(block.get("text"), str)):
            raise broke_contract(what, "content: expected blocks with a type, and text in those of text")


def _check_inputs(result: dict[str, Any], what: str) -> None:
    asked = result.get("inputRequests", {})
    if not isinstance(asked, dict) or len(asked) > _ASKED:
        raise broke_contract(what, f"inputRequests: expected an object of at most {_ASKED} requests")
    for request in asked.values():
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise broke_contract(what, "inputRequests: expected objects with a method")
        if not isinstance(request.get("params", {}), dict):
            raise broke_contract(what, "inputRequests: expected params that are an object")
    if not isinstance(result.get("requestState", ""), str):
        raise broke_contract(what, "requestState: expected text")


def _list_of(method: str) -> str:
    return METHODS[method][2] if method in METHODS else "content"
