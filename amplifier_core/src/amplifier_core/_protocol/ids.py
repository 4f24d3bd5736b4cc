"""Identifiers and time: the only places where randomness and clocks enter the kernel.

Owns neither: both are arguments, so that two runs with the same seed and a fixed clock are the same to the byte.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_POOL = 4096  # bytes a draw; to ask the system for each id would take ten times as long


class Clock(Protocol):
    """A source of time; the standard module ``time`` is one."""

    def time(self) -> float:
        """Seconds since the Unix epoch, for ``ts``."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations. Deadlines follow the event loop's own clock instead."""


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
    """1 for the root."""
    tree: RequestTree


class Ids:
    """Draws identifiers from one pool of random bytes; ``entropy(n)`` gives n of them."""

    __slots__ = ("_entropy", "_pool", "_requests")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._pool: list[str] = []  # the next one last
        self._requests: list[str] = []  # those of requests, also

    def hex16(self) -> str:
        """Draw 16 hex digits, the form of a span id."""
        if not self._pool:
            self._fill()
        return self._pool.pop()

    def root(self) -> Span:
        """Begin a request: a new tree with its first span."""
        if not self._requests:
            self._requests = self._entropy(_POOL).hex(" ", 16).split()[::-1]
        if not self._pool:
            self._fill()
        return Span(self._requests.pop(), self._pool.pop(), None, 1, RequestTree())

    def _fill(self) -> None:
        self._pool = self._entropy(_POOL).hex(" ", 8).split()[::-1]

    def child(self, parent: Span) -> Span:
        """Begin an operation below another one of the same request."""
        return Span(parent.request_id, self.hex16(), parent.span_id, parent.depth + 1, parent.tree)


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
