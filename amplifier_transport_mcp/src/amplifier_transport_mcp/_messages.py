"""The messages of JSON-RPC: made of decoded JSON, and small enough to be looked at.

Owns their shape and the bounds of what is not their payload. What a message means is for the correlator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import mcp_types as types

from amplifier_core.hookspecs import LARGE, decode, decode_large

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Literal["2.0"] = "2.0"
NAME_MAX = 256
"""Characters that a name may have: an id, a method, a tool."""
_ID_LIMIT = 2**63  # ids that are numbers are below


def read_message(value: Any) -> types.JSONRPCMessage:
    """Make a message of decoded JSON, or raise ``ValueError`` with what is wrong with it.

    Nothing is copied and nothing looked at twice: the SDK's models would do both.
    """
    if not isinstance(value, dict) or value.get("jsonrpc") != _VERSION:
        raise ValueError("expected a message of JSON-RPC 2.0")
    if isinstance(method := value.get("method"), str):
        return _read_request(value, method)
    result, error = value.get("result"), value.get("error")
    if ("result" in value) == ("error" in value) and (result is None) == (error is None):
        raise ValueError("expected a method, or either a result or an error")
    if isinstance(result, dict):
        return types.JSONRPCResponse.model_construct(jsonrpc=_VERSION, id=_id(value), result=result)
    if isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
        data = types.ErrorData.model_construct(code=error["code"], message=error["message"], data=error.get("data"))
        reply_to = None if value.get("id") in (None, "") else _id(value)
        return types.JSONRPCError.model_construct(jsonrpc=_VERSION, id=reply_to, error=data)
    raise ValueError("expected a result that is an object, or an error with its code and message")


def _read_request(value: Mapping[str, Any], method: str) -> types.JSONRPCMessage:
    params = value.get("params")
    if params is not None and not isinstance(params, dict):
        raise ValueError("params: expected an object")
    if len(method) > NAME_MAX:
        raise ValueError(f"method: expected at most {NAME_MAX} characters")
    if "id" not in value:
        return types.JSONRPCNotification.model_construct(jsonrpc=_VERSION, method=method, params=params)
    return types.JSONRPCRequest.model_construct(jsonrpc=_VERSION, id=_id(value), method=method, params=params)


def may_be_reply(value: Any) -> bool:
    """Tell whether JSON that is no message, or answers no request, can only be meant as a reply."""
    if isinstance(value, dict):
        return "method" not in value and ("jsonrpc" in value or "result" in value or "error" in value)
    return value is None or isinstance(value, list)


async def decode_any(text: bytes, limit: int) -> Any:
    """Decode JSON of a message of at most so many bytes; a large one away from the loop. Raises ``NotJson``."""
    return await decode_large(text, limit) if len(text) > LARGE else decode(text, limit)


def failed(request_id: int | str, fault: str) -> types.JSONRPCError:
    """Make the reply by which a fault of ours goes through the SDK to its call."""
    error = types.ErrorData(code=types.INTERNAL_ERROR, message="the transport failed this call", data=fault)
    return types.JSONRPCError(jsonrpc=_VERSION, id=request_id, error=error)


def has_more_values(value: Any, limit: int) -> bool:
    """Tell whether there are more values in a value than so many, keys included. It looks at no more than that."""
    ahead, count = [value], 1
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            count += 2 * len(each)
            each = each.values()
        elif isinstance(each, list):
            count += len(each)
        else:
            continue
        if count > limit:
            return True
        ahead += each
    return False


def _id(value: Mapping[str, Any]) -> int | str:
    request_id = value.get("id")
    if type(request_id) is float and request_id.is_integer():  # as languages write it whose numbers are all alike
        request_id = int(request_id)
    if type(request_id) is int and abs(request_id) < _ID_LIMIT:
        return request_id
    if isinstance(request_id, str) and len(request_id) <= NAME_MAX:
        return request_id
    raise ValueError(f"id: expected a number, or text of at most {NAME_MAX} characters")
