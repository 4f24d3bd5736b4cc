"""The kernel's errors for calls that end without a reply, by the table of gRPC's statuses (protocol, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from amplifier_core import Internal, KernelError, Unreachable

if TYPE_CHECKING:
    from grpc.aio import AioRpcError

_CODES = {
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.INVALID_ARGUMENT: "bad_request",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.NOT_FOUND: "unsupported_op",
    grpc.StatusCode.PERMISSION_DENIED: "forbidden",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "unreachable",
    grpc.StatusCode.FAILED_PRECONDITION: "bad_request",
    grpc.StatusCode.OUT_OF_RANGE: "bad_request",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported_op",
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.UNAUTHENTICATED: "forbidden",
}  # any other, such as INTERNAL, UNKNOWN or DATA_LOSS, is `internal`
_TOO_LARGE = "eceived message larger than max"  # what gRPC's core says; a server's own refusal begins with SERVER
_BROKEN = "Stream removed"  # what gRPC's core says when the server speaks no HTTP/2, or none any more
_TEXT_MAX = 1000  # characters of a server's text that an error shows


def status_error(target: str, error: AioRpcError) -> KernelError:
    """Make the error for a call that ended with a status, which ``details`` have as ``grpc_status``."""
    status, said = error.code(), (error.details() or "")[:_TEXT_MAX]
    code = _CODES.get(status, "internal")
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in said:
        code = "bad_request" if said.startswith("SERVER") else "internal"
    if status is grpc.StatusCode.UNKNOWN and said.startswith(_BROKEN):
        code = "unreachable"
    details = {"grpc_status": status.name, "target": target}
    return KernelError.from_body(code, f"{target} answered {status.name}{said and f': {said}'}", details)


def broke_contract(target: str, why: str) -> Internal:
    """Make the error for a response that is no reply."""
    return Internal(f"{target} broke its contract: {why}", details={"target": target})


def unreachable(target: str, why: str) -> Unreachable:
    """Make the error of a call that could not be made, or was given up."""
    return Unreachable(f"{target}: {why}", details={"target": target})
