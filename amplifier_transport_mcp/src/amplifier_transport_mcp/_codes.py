"""What an error of MCP means in the words of the kernel's protocol (section 5).

Owns the table of JSON-RPC codes. The table of HTTP statuses is the HTTP transport's.
"""

from __future__ import annotations

from typing import Any

from amplifier_core import Internal, KernelError

_CODES = {
    -32601: "unsupported_op",  # method not found
    -32602: "bad_request",  # invalid params
    -32002: "bad_request",  # resource not found, until 2026
    -32021: "forbidden",  # the server needs a capability of its client that the descriptor does not offer
    -32042: "forbidden",  # the server needs a person to visit a page
}

SPOKEN = frozenset((-32700, -32600, -32601, -32602, -32603, -32002, -32020, -32021, -32022, -32042))
"""Codes that MCP defines. With any other code in a failed HTTP response, its status counts."""

_SHOWN = 200  # bytes of a message that broke the contract

HEADER_MISMATCH = -32020
"""The server's tools are not those that were listed."""


def of_server(code: int, message: str, data: Any, what: str, http_status: int | None = None) -> KernelError:
    """Give the error that a server's JSON-RPC error stands for."""
    details: dict[str, Any] = {"mcp_code": code}
    if data is not None:
        details["mcp_data"] = data
    if http_status is not None:
        details["http_status"] = http_status
    error = KernelError.from_body(_CODES.get(code, "internal"), f"{what}: {message or f'MCP error {code}'}", details)
    error.replied = True
    return error


def broke_contract(what: str, why: str, text: bytes = b"") -> Internal:
    """Give the error of a server that does not keep to MCP. ``text`` is what it sent; the beginning is shown."""
    details = {"line": text[:_SHOWN].decode(errors="replace")} if text else None
    return Internal(f"the server broke its contract: {what}: {why}", details=details)


def again(error: KernelError) -> KernelError:
    """Copy an error: callers must not share one exception."""
    return KernelError.from_body(error.code, error.message, error.details)
