"""Identifiers and time: the only places where randomness and clocks enter the kernel.

Owns neither: both are arguments, so that two runs with the same seed and a fixed clock are the same to the byte.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from .errors import BadRequest, short

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .errors import KernelError

_POOL = 4096  # bytes a draw; to ask the system for each id would take ten times as long


class Clock(Protocol):
    """A source of time; the standard module ``time`` is one."""

    def time(self) -> float:
        """Seconds since the Unix epoch, for ``ts``."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations. Deadlines follow the event loop's own clock instead."""


def ms_since(clock: Clock, began: float) -> float:
    """Count the milliseconds since a moment of the monotonic clock, as an event has them: to the microsecond."""
    return int((clock.monotonic() - began) * 1e6) / 1000


class RequestTree(msgspec.Struct, gc=False):
    """What the operations of one request share."""

    calls: int = 0
    """The system calls in progress."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """One operation in a request's tree (protocol, section 7)."""

    request_id: str
    """32 hex digits: the id of a W3C trace."""
    span_id: str
    parent_span_id: str | None
    depth: int
    """1 for the first that the kernel does for a request, 0 above it. The embedder's own spans add nothing."""
    tree: RequestTree


class RemoteParent(NamedTuple):
    """The span of a caller outside of the kernel, as its ``traceparent`` names it."""

    header: str
    request_id: str
    span_id: str


class Ids:
    """Draws identifiers from one pool of random bytes; ``entropy(n)`` gives n of them.

    ``in_order``: the ids of spans and sessions begin alike and end with a number, so that they tell which came first.
    """

    __slots__ = ("_entropy", "_next", "_pool", "_requests")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom, *, in_order: bool = False) -> None:
        self._entropy = entropy
        self._next: int | None = int.from_bytes(entropy(4)) << 32 if in_order else None
        self._pool: list[str] = []  # the next one last
        self._requests: list[str] = []  # those of requests, also

    def hex16(self) -> str:
        """Draw 16 hex digits, the form of a span id."""
        if not self._pool:
            self._fill()
        return self._pool.pop()

    def session(self, span: Span | None) -> str:  # noqa: ARG002 - a replay draws by it
        """Draw the id of a session that is made in a span, or in none."""
        return "ses_" + self.hex16()

    def root(self) -> Span:
        """Begin a request: a new tree with its first span."""
        if not self._requests:
            self._requests = self._entropy(_POOL).hex(" ", 16).split()[::-1]
        if not self._pool:
            self._fill()
        return Span(self._requests.pop(), self._pool.pop(), None, 1, RequestTree())

    def take_end(self, span: Span, end: Callable[[KernelError], None]) -> None:
        """Take what ends the operation of a span early, with an error: a replay does so where a deadline did.

        What is taken later for the same span ends the question to a policy hook about it.
        """

    def hold(self, span: Span, hook: str | None = None) -> Awaitable[object] | None:  # noqa: ARG002 - a replay waits
        """Give what an operation waits for. ``None``: nothing.

        An invocation asks before its module's system calls are made, and when they are; policy, when a ``hook`` that is
        a module has answered. A replay holds there what would be ahead of the recorded run.
        """
        return None

    def _fill(self) -> None:
        if self._next is None:
            self._pool = self._entropy(_POOL).hex(" ", 8).split()[::-1]
        else:
            first, self._next = self._next, self._next + _POOL // 8
            self._pool = [f"{n:016x}" for n in range(self._next - 1, first - 1, -1)]

    def child(self, parent: Span) -> Span:
        """Begin an operation below another one of the same request."""
        tree = parent.tree if parent.depth else RequestTree()
        return Span(parent.request_id, self.hex16(), parent.span_id, parent.depth + 1, tree)

    def hook_call(self, parent: Span) -> Span:
        """Begin the call of a policy hook that is a module, about an operation."""
        return self.child(parent)

    def continued(self, remote: RemoteParent) -> Span:
        """Begin an operation below one outside of the kernel."""
        return Span(remote.request_id, self.hex16(), remote.span_id, 1, RequestTree())

    def group(self, above: Span | None, remote: RemoteParent | None) -> Span:
        """Begin a span of the embedder's, in which operations may begin: below another one, or a request."""
        parent = remote or above
        if parent is None:
            return of_embedder(self.root())
        return Span(parent.request_id, self.hex16(), parent.span_id, 0, RequestTree())


def of_embedder(span: Span) -> Span:
    """Give a span as one that the embedder's code runs in: what it calls adds no depth, and has a count of its own.

    So does what a policy hook calls: it may go on after the hook has answered.
    """
    return msgspec.structs.replace(span, depth=0)


_HEADER_SIZE = 55  # characters of version 00; those of a later one begin with them


def read_traceparent(header: object, warn: Callable[[str, str], object]) -> RemoteParent | None:
    """Read a W3C ``traceparent``. ``None``: there is none, or it is not valid, of which a line warns.

    Whoever sends one that is not valid gets no other answer than without it, as the W3C asks. Raises ``BadRequest`` for
    what is no text.
    """
    if header is None:
        return None
    if not isinstance(header, str):
        raise BadRequest(f"traceparent: expected text, got {type(header).__name__}")
    parts = _traceparent().fullmatch(header[: _HEADER_SIZE + 1])
    if parts is None or (parts[1] == "00" and len(header) > _HEADER_SIZE):
        warn("traceparent", f"traceparent: expected 00-TRACE_ID-PARENT_ID-FLAGS, got {short(header)}: it is ignored")
        return None
    return RemoteParent(header[:_HEADER_SIZE], parts[2], parts[3])


@functools.cache
def _traceparent() -> re.Pattern[str]:
    return re.compile("(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}-?")


def traceparent(params: bytes) -> bytes | None:
    """Give the W3C trace context (version 00, sampled) of the parameters of ``invoke``, as the kernel writes them.

    For a transport that carries it beside the parameters, as a header. ``None`` if they tell no request.
    """
    told = _start_of_invoke().match(params)
    return told and b"00-%b-%b-01" % told.groups()


@functools.cache  # only some transports need it
def _start_of_invoke() -> re.Pattern[bytes]:
    op = rb'"(?:[^"\\]++|\\.)*+"'
    return re.compile(rb'\{"op":%b,"request_id":"([0-9a-f]{32})","span_id":"([0-9a-f]{16})"' % op)
