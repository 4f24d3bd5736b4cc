"""A plain object as a module: ``describe()`` and ``invoke(op, args, context)``, plain functions or ``async`` ones.

Owns what becomes of their results and exceptions. How many run at once is the connection's to say.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from amplifier_core import Internal, KernelError
from amplifier_core.hookspecs import causes

from ._context import Context, Pending, write
from ._thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._context import Sender

_THREADS = 64
_KERNEL_CODES = ("oom", "budget_exceeded", "unreachable")
_TRACEBACK_MAX = 8192  # characters, of its end


class PlainModule(Protocol):
    """The shape of a plain object. Each function may be ``async``; a plain one runs in a thread."""

    def describe(self) -> Mapping[str, Any]:
        """Give the body of the reply to ``describe`` (section 2)."""

    def invoke(self, op: str, args: dict[str, Any], context: Context) -> Any:
        """Carry out an operation, and give its result, any JSON, or ``context.pending(…)``.

        A ``KernelError`` is the reply with its code, as ``BadRequest`` or ``KernelError(message, code="own")``. Any
        other exception becomes ``internal``, and what was given to ``context.event`` is lost.
        """


class PlainObject:
    """What answers for a plain object."""

    def __init__(self, target: PlainModule) -> None:
        self._target = target
        self.places: int | None = None if inspect.iscoroutinefunction(target.invoke) else _THREADS

    def begin(self, method: str, params: bytes, sender: Sender) -> asyncio.Future[bytes]:
        """Begin to answer one request, in a task or in a thread."""
        events: list[Any] = []
        if method == "invoke":
            asked = msgspec.json.decode(params)  # the kernel has written it
            name, args = asked["op"], asked.get("args", {})
            function = partial(self._target.invoke, name, args, _context(asked, sender, events))
        else:
            name, function = method, partial(getattr(self._target, method, _healthy))
        if inspect.iscoroutinefunction(function):
            return asyncio.get_running_loop().create_task(_await(name, function, events), name=name)
        return in_thread(lambda: _call(name, function, events))

    async def close(self) -> None:
        """Do nothing: the object is the embedder's."""


def _healthy() -> dict[str, str]:
    """Answer for an object that has no ``health()``."""
    return {"status": "ok"}


def _context(asked: Mapping[str, Any], sender: Sender, events: list[Any]) -> Context:
    left = asked.get("deadline_ms")
    deadline = None if left is None else time.monotonic() + left / 1000
    ids = {name: asked.get(name) for name in ("session_id", "request_id", "span_id")}
    return Context(**ids, resume=asked.get("resume"), deadline=deadline, sender=sender, events=events)


async def _await(name: str, function: partial[Any], events: list[Any]) -> bytes:
    try:
        return _reply(await function(), events)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code; its SystemExit would end the loop
        return _failure(error, name, events)


def _call(name: str, function: partial[Any], events: list[Any]) -> bytes:
    try:
        return _reply(function(), events)
    except BaseException as error:  # noqa: BLE001 - foreign code
        return _failure(error, name, events)


def _reply(result: object, events: list[Any]) -> bytes:
    if isinstance(result, Pending):
        return _message(b'"pending":%b' % write(result.body, "pending"), events)
    return _message(b'"ok":true,"result":%b' % write(result, "result"), events)


def _failure(error: BaseException, name: str, events: list[Any]) -> bytes:
    """Make the reply with an error of the protocol. Raise ``Internal`` from any other, and its traceback with it.

    So for a code that is the kernel's alone: a call that the object made has failed.
    """
    if isinstance(error, KernelError) and error.code not in _KERNEL_CODES:
        return _message(b'"ok":false,"error":%b' % write(error.body(), "error"), events)
    lines = "".join(traceback.format_exception(error))[-_TRACEBACK_MAX:]
    details = {"causes": causes(error), "traceback": lines.encode(errors="backslashreplace").decode()}
    raise Internal(f"{name} raised {causes(error)[0]}", details=details) from error


def _message(reply: bytes, events: list[Any]) -> bytes:
    return b'{%b,"events":%b}' % (reply, write(events, "events")) if events else b"{%b}" % reply
