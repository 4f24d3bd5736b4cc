"""The stream of a server's own messages, which belong to no request of the client's.

Owns when it is asked for again. A fault ends one stream of it, and fails nobody.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from amplifier_core.hookspecs import NotJson
from amplifier_transport_http import Body

from ._events import stream_for_sdk
from ._messages import decode_any, read_message
from ._resumption import Resumption

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import httpx
    import httpx2

    from amplifier_core import KernelError

    from ._correlator import Correlator
    from ._passage import Parcel

_FIRST_DELAY = 1.0

T = TypeVar("T")


class Listener:
    """The streams of one client, one after the other."""

    token = "listen"  # noqa: S105 - no secret

    def __init__(self, url: httpx.URL, limit: int, correlator: Correlator) -> None:
        self._url = url
        self._limit = limit
        self._passage = correlator.passage
        self.pace = correlator.pace
        self.place = Resumption(str(url), _FIRST_DELAY, math.inf)

    async def resume(self, request: httpx.Request, pool: httpx.AsyncBaseTransport) -> httpx2.Response:
        """Ask for the stream, when it is due. Raises ``httpx.TransportError``."""
        await self.place.wait()
        response = await pool.handle_async_request(request)
        return await stream_for_sdk(self, response, Body(response, self._url, self._limit))

    async def until_aborted(self, work: Awaitable[T]) -> T | None:
        """Wait for some work. The SDK cancels it at the end of the client."""
        return await work

    async def take(self, text: bytes) -> tuple[Parcel | None, bool]:
        """Take one message, or what is none."""
        try:
            message = read_message(await decode_any(text, self._limit))
        except (NotJson, ValueError):
            return None, False
        return self._passage.pack(message, len(text)), False

    def cut(self, cause: httpx.TransportError | None) -> None:  # noqa: ARG002 - whatever it is
        """Take note that a stream has ended."""
        self.place.end()

    def fault(self, error: KernelError) -> bytes:  # noqa: ARG002 - nobody waits for it
        """End a stream with an event that says nothing."""
        self.place.end()
        return b""
