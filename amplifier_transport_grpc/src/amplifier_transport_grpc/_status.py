"""The kernel's errors for calls that end without a reply, by the table of gRPC's statuses (protocol, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core import KernelError

if TYPE_CHECKING:
    from grpc.aio import AioRpcError

_STATUSES = {
    "unreachable": ("UNAVAILABLE", "RESOURCE_EXHAUSTED"),
    "timeout": ("DEADLINE_EXCEEDED",),
    "cancelled": ("CANCELLED",),
    "forbidden": ("UNAUTHENTICATED", "PERMISSION_DENIED"),
    "bad_request": ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
    "unsupported_op": ("UNIMPLEMENTED", "NOT_FOUND"),
}  # any other, such as INTERNAL, UNKNOWN or DATA_LOSS, is `internal`
_TOO_LARGE = "eceived message larger than max"  # what gRPC's core says; a server's own refusal begins with SERVER
_BROKEN = "Stream removed"  # what gRPC's core says when the server speaks no HTTP/2, or none any more
_UNSEEN = ("Stream removed (GOAWAY received;", "Stream removed (RST_STREAM (Received RST_STREAM with error code 7)")
"""What gRPC's core says when the server has told by HTTP/2 that it has not looked at a call (RFC 9113, section 8.7).
That of a call which the server may have looked at before it closed its connection has "Socket closed" there."""
_NO_TLS = "WRONG_VERSION_NUMBER"  # what its TLS says of an answer that is not encrypted
_TEXT_MAX = 1000  # characters of a server's text that an error shows


def status_error(target: str, error: AioRpcError) -> KernelError:
    """Make the error for a call that ended with a status, which ``details`` have as ``grpc_status``."""
    status, said = error.code().name, " ".join((error.details() or "")[:_TEXT_MAX].split())  # one line
    code = next((code for code, statuses in _STATUSES.items() if status in statuses), "internal")
    if status == "RESOURCE_EXHAUSTED" and _TOO_LARGE in said:
        code = "bad_request" if said.startswith("SERVER") else "internal"
    if status == "UNKNOWN" and said.startswith(_BROKEN):
        code = "unreachable"
    if _NO_TLS in said:
        said += "; if this server does not encrypt, `tls` is false"
    details = {"grpc_status": status, "target": target}
    return KernelError.from_body(code, f"{target} answered {status}{said and f': {said}'}", details)


def refused_unseen(error: AioRpcError) -> bool:
    """Tell whether a call was refused before the server looked at it, so that it can be made again."""
    return error.code().name == "UNAVAILABLE" and (error.details() or "").startswith(_UNSEEN)


def failed(error: type[KernelError], target: str, why: str) -> KernelError:
    """Make the error of a call that has no status, or one that says nothing."""
    return error(f"{target}: {why}", details={"target": target})
