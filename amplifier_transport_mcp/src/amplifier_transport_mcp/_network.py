"""The connections of the HTTP transport, for the SDK, whose httpx2 is a descendant of httpx.

Owns the translation alone. Not httpx2's own connections: before they use one again, they do not look whether a response
that nobody asked for waits on it, which then answers the next call; and each request costs several times as much.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast

import httpx
import httpx2

from amplifier_core import Unreachable
from amplifier_core.hookspecs import causes
from amplifier_transport_http import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._fields import HttpFields


class Network(httpx2.AsyncBaseTransport):
    """An httpx2 transport to one origin. Raises ``httpx.TransportError``."""

    def __init__(self, fields: HttpFields) -> None:
        url = httpx.URL(fields.url)
        self._pool = Pool(url, _trust(fields) if url.scheme == "https" else None)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and wait for the head of the response."""
        content = await request.aread()
        headers = request.headers.raw
        asked = httpx.Request(request.method, str(request.url), headers=headers, stream=httpx.ByteStream(content))
        response = await self._pool.handle_async_request(asked)
        return httpx2.Response(response.status_code, headers=response.headers.raw, stream=_Body(response))

    async def aclose(self) -> None:
        """Close every connection; requests in flight fail."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of one response, as it arrives."""

    def __init__(self, response: httpx.Response) -> None:
        self._stream = cast("httpx.AsyncByteStream", response.stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _trust(fields: HttpFields) -> ssl.SSLContext:
    """Say whose certificates count: the authorities that httpx brings, or one file; never what the environment says."""
    try:
        if fields.ca is None:
            return httpx.create_ssl_context(trust_env=False)
        return ssl.create_default_context(cafile=fields.ca)
    except OSError as error:
        details = {"url": fields.url, "causes": causes(error)}
        raise Unreachable(f"{fields.url}: no certificates to trust in {fields.ca}: {error}", details=details) from error
