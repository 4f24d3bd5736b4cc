"""A span of the embedder's: what its own code does, as a part of the tree that the log shows.

Owns its beginning and its end, which is one event, ``session:span``. `_sessions.current` owns what is inside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from amplifier_core._protocol.errors import BadRequest, Cancelled, Internal, KernelError, causes, one_line, short
from amplifier_core._protocol.event import NAME_MAX, checked_data
from amplifier_core._protocol.ids import ms_since, read_traceparent
from amplifier_core._sessions.current import current_span, enter, leave

if TYPE_CHECKING:
    from types import TracebackType

    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState


class SessionSpan:
    """One span of the embedder's in a request's tree (protocol, section 7). Made by ``Session.span``.

    ``with session.span("agent.step") as span`` begins and ends it. What the block calls, through any session of the
    kernel, in its tasks and threads too, is a child of it, and the events that it emits have its ids. The end is one
    event, ``session:span``; an exception that leaves the block is its ``error``.
    """

    __slots__ = ("_began", "_ended", "_name", "_remote", "_span", "_state", "data")

    def __init__(self, state: SessionState, name: str, data: Mapping[str, Any] | None, traceparent: str | None) -> None:
        if not isinstance(name, str) or not name:
            raise BadRequest(f"name: expected text, got {short(name)}")
        if len(name) > NAME_MAX:
            raise BadRequest(f"name: expected at most {NAME_MAX} characters, got {len(name)}")
        if data is not None and not isinstance(data, Mapping):
            raise BadRequest(f"data: expected an object, got {type(data).__name__}")
        self._state = state
        self._name = name
        self._remote = read_traceparent(traceparent, state.runtime.bus.warn)
        self._span: Span | None = None
        self._began = 0.0
        self._ended = False
        self.data: dict[str, Any] = dict(data or {})
        """What the event has under ``data``: JSON. Members may be added until the end of the span."""

    def __repr__(self) -> str:
        return f"<SessionSpan {self._name}: {self._span.span_id if self._span else 'not begun'}>"

    @property
    def request_id(self) -> str:
        """The id of the request that the span belongs to, which is that of a W3C trace: 32 hexadecimal digits."""
        return self._begun().request_id

    @property
    def span_id(self) -> str:
        """The span's own id: 16 hexadecimal digits."""
        return self._begun().span_id

    @property
    def traceparent(self) -> str:
        """The W3C trace context (version 00, sampled) for what the block calls by other ways than the kernel."""
        return f"00-{self.request_id}-{self.span_id}-01"

    def _begun(self) -> Span:
        if self._span is None:
            raise BadRequest(f"span {self._name} has no ids before it begins: use it in `with`")
        return self._span

    def __enter__(self) -> Self:
        state = self._state
        state.check_call()
        if self._span is not None:
            raise BadRequest(f"span {self._name} has begun already: a span is used once")
        runtime = state.runtime
        self._span = runtime.ids.group(current_span(runtime), self._remote)
        self._began = runtime.clock.monotonic()
        enter(runtime, self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None and not self._ended:
            self._ended = True
            leave(self._state.runtime, self._span)
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Record the event. What ends later than its kernel, or than its event loop, is in no log."""
        runtime = self._state.runtime
        ms = ms_since(runtime.clock, self._began)  # another thread's event is recorded later
        shown, fault = checked_data(self.data, runtime.bus.limit)
        data: dict[str, Any] = {"name": self._name}
        if self._remote is not None:
            data["traceparent"] = self._remote.header
        if self.data:
            data["data"] = shown
        failure = _failure(error, self._name) if error else BadRequest(fault) if fault else None
        record = partial(self._state.record, "session:span", self._span, status="error" if failure else "ok")
        end = partial(record, ms=ms, data=data, error=failure)
        if runtime.bus.closed:
            return
        if runtime.inbox.thread == get_ident():
            end()
        else:
            with contextlib.suppress(BadRequest):  # nobody records it any more
                runtime.inbox.leave(end)


def _failure(error: BaseException, name: str) -> KernelError:
    """Make the error of the event. The details of a call's are in the event of that call."""
    if isinstance(error, KernelError):
        return KernelError(error.message, code=error.code)
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Cancelled("the caller gave up")
    return Internal(f"span {name} raised {one_line(error)}", details={"causes": causes(error)})
