"""What an error of MCP means in the words of the kernel's protocol (sections 4 and 5).

Owns the two tables: JSON-RPC codes, and HTTP statuses.
"""

from __future__ import annotations

from typing import Any

from amplifier_core import Internal, KernelError

_CODES = {
    -32601: "unsupported_op",  # method not found
    -32602: "bad_request",  # invalid params
    -32002: "bad_request",  # resource not found, until 2026
    -32021: "forbidden",  # the server needs a capability of its client that the descriptor does not offer
    -32042: "forbidden",  # the server needs somebody to visit a page
}

SPOKEN = frozenset((-32700, -32600, -32601, -32602, -32603, -32002, -32020, -32021, -32022, -32042))
"""Codes that MCP gives a meaning. What else comes with a failed HTTP response means less than its status."""

_STATUSES = {
    400: "bad_request",
    401: "forbidden",
    403: "forbidden",
    404: "unsupported_op",
    405: "unsupported_op",
    408: "timeout",
    413: "bad_request",
    422: "bad_request",
    429: "unreachable",
    501: "unsupported_op",
    502: "unreachable",
    503: "unreachable",
    504: "timeout",
}

HEADER_MISMATCH = -32020
"""The server's tools are not those that were listed."""


def of_server(code: int, message: str, data: Any, what: str, http_status: int | None = None) -> KernelError:
    """Give the error that a server's JSON-RPC error stands for."""
    details: dict[str, Any] = {"mcp_code": code}
    if data is not None:
        details["mcp_data"] = data
    if http_status is not None:
        details["http_status"] = http_status
    return KernelError.from_body(_CODES.get(code, "internal"), f"{what}: {message or f'MCP error {code}'}", details)


def of_status(status: int, url: str, what: str, **details: Any) -> KernelError:
    """Give the error that an HTTP status stands for; ``what`` goes on from "answered HTTP 500 with"."""
    message = f"{url} answered HTTP {status} with {what}"
    return KernelError.from_body(
        _STATUSES.get(status, "internal"), message, {"http_status": status, "url": url, **details}
    )


def broke_contract(what: str, why: str) -> Internal:
    """Give the error of a server that does not keep to MCP."""
    return Internal(f"the server broke its contract: {what}: {why}")


def again(error: KernelError) -> KernelError:
    """Copy an error, so that no two callers share an exception."""
    return KernelError.from_body(error.code, error.message, error.details)
