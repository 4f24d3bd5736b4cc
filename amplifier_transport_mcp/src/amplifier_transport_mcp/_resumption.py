"""The place where a stream of events can be resumed, and when that may be tried.

Owns delays and attempts. Who asks again is the SDK; the streams are the exchange's.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

from ._codes import broke_contract
from ._sse import ID_MAX

if TYPE_CHECKING:
    from ._sse import Event

LONGEST = 60.0
"""Seconds between two attempts at most, whatever the server wishes."""


class Resumption:
    """The place in the streams of one request. Each attempt waits twice as long as the one before.

    ``first`` is the first delay in seconds, ``attempts`` how many there are; a message starts both anew.
    """

    def __init__(self, url: str, first: float, attempts: float) -> None:
        self.id: str | None = None
        """Where the stream can be resumed; ``None``: nowhere."""
        self._url = url
        self._first = self._delay = first
        self._attempts = self._left = attempts
        self._retry = 0.0
        self._ended = -math.inf

    def note(self, event: Event, retry_ms: int) -> None:
        """Take note of an event. Raises ``Internal`` for an id that no header can have."""
        if event.id is not None:
            text = event.id.decode("latin-1")
            if len(text) > ID_MAX or not (text.isascii() and text.isprintable()):
                why = f"expected ids of events of at most {ID_MAX} printable ASCII characters"
                raise broke_contract(self._url, why)
            self.id = text or None
        self._retry = retry_ms / 1000
        if event.message:
            self._delay, self._left = self._first, self._attempts

    def end(self) -> None:
        """Take note of the end of a stream."""
        self._ended = time.monotonic()

    async def wait(self) -> None:
        """Wait until the next attempt is due. Raises ``Unreachable`` if there have been too many in vain."""
        if not self._left:
            raise Unreachable(f"{self._url}: the stream was resumed {self._attempts:g} times without a message")
        self._left -= 1
        due = self._ended + min(max(self._delay, self._retry), LONGEST)
        self._delay *= 2
        await asyncio.sleep(max(0.0, due - time.monotonic()))
