"""What goes wrong in an operation, and the ``error`` that its reply has then (protocol, section 5).

Owns that translation. It knows neither a transport nor how an operation is run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_KERNEL_CODES = ("oom", "budget_exceeded", "unreachable")
_CODE_MAX = 64  # characters
_MESSAGE_MAX = 8192  # characters
_TEXT_MAX = 1000  # characters of a foreign exception's text


class ModuleError(Exception):
    """An error that the caller of an operation gets as it is; also that of a system call that failed.

    ``code`` is one of the protocol's, such as ``bad_request``, or the module's own: at most 64 printable characters.
    ``message`` is one line for people, ``details`` any JSON that helps to find the cause.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Cancelled(BaseException):
    """The caller has given up. ``Context.chunk`` and ``Context.check`` raise it in an operation that goes on.

    It is no ``Exception``, so that ``except Exception`` in an operation does not catch it by accident.
    """


def error_body(error: BaseException, op: str) -> dict[str, Any]:
    """Make the ``error`` of a reply. Of an exception that is no ``ModuleError``, stderr gets the traceback."""
    if isinstance(error, ModuleError):
        return _of_module_error(error)
    if _is_cancellation(error):
        return {"code": "cancelled", "message": f"{op} was cancelled"}
    import traceback  # noqa: PLC0415 - a module that has no errors starts sooner

    traceback.print_exception(error)
    return {"code": "internal", "message": f"{type(error).__qualname__}: {_one_line(error)}"[:_TEXT_MAX]}


def _of_module_error(error: ModuleError) -> dict[str, Any]:
    """Give an error as it is. A code that only the kernel may use came from a system call: it becomes the cause."""
    message = " ".join(error.message.splitlines())
    if len(message) > _MESSAGE_MAX:
        message = f"{message[: _MESSAGE_MAX - 1]}…"
    body: dict[str, Any] = {"code": error.code, "message": message}
    if error.details:
        body["details"] = error.details
    if error.code in _KERNEL_CODES:
        return {"code": "internal", "message": f"{error.code}: {message}"[:_MESSAGE_MAX], "details": {"cause": body}}
    if not 0 < len(error.code) <= _CODE_MAX or not error.code.isprintable():
        return {
            **body,
            "code": "internal",
            "message": f"{error.code[:_CODE_MAX]!r} is no code: {message}"[:_MESSAGE_MAX],
        }
    return body


def _is_cancellation(error: BaseException) -> bool:
    """Tell whether an operation ended because it was cancelled. asyncio is not imported for the question."""
    asyncio = sys.modules.get("asyncio")
    return isinstance(error, Cancelled) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception as broken:  # noqa: BLE001 - the text of a foreign exception is foreign code
        return f"its text raised {type(broken).__qualname__}"
