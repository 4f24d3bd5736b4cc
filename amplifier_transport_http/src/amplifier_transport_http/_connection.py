"""The connection to one module elsewhere: each request of the kernel becomes a POST, and its response the reply.

Owns redirects and the choice of an httpx transport. Sockets are the pool's, deadlines the kernel's.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs
import httpx

from amplifier_core import Internal, KernelError
from amplifier_core.hookspecs import Connection, traceparent

from ._body import Body
from ._http2 import Http2
from ._http11 import request_head
from ._ndjson import MEDIA_TYPE, read_final
from ._pool import Pool
from ._reply import read_reply
from ._response import Response, unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Message

    from ._fields import HttpFields
    from ._pool import Exchange
    from ._small_reads import SmallReads

_METHODS = ("health", "describe", "invoke")
_REDIRECTS_MAX = 5
_HEADERS = {
    "user-agent": "amplifier-transport-http",
    "accept": f"application/json, {MEDIA_TYPE}",
    "accept-encoding": "identity",  # on one host or one network, packing costs more than it saves
    "content-type": "application/json",
}


class HttpConnection(Connection):
    """The connection to a module elsewhere. Between requests it keeps sockets, and nothing else."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: HttpFields) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self.endpoints = fields.endpoints
        self._limit = descriptor.message_bytes
        self._fields = fields
        base = str(fields.url).rstrip("/")
        self._url = httpx.URL(base)
        self._targets = {method: _Target(httpx.URL(f"{base}/{method}")) for method in _METHODS}
        self._headers = httpx.Headers({"host": fields.url.netloc.decode(), **_HEADERS, **fields.headers}).raw
        self._transport: httpx.AsyncBaseTransport | None = None

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - elsewhere
        """Make the httpx transport. It connects at the first request, which is ``health``."""
        self._transport = _make_transport(self._fields)

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Send one request and give its reply. Cancelling it closes its connection, which tells the module."""
        try:
            return await self._follow(self._targets[method], method, params, chunks)
        except httpx.TransportError as error:
            raise unreachable(self._url, str(error), error) from error

    async def close(self) -> None:
        """Close all connections; requests in flight fail at once."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _follow(
        self, target: _Target, method: str, params: bytes, chunks: Chunks | None, redirects: int = _REDIRECTS_MAX
    ) -> Message:
        """Send a request, and send it again where a redirect says, unless its response carries a reply."""
        response = await self._send(target, params, chunks)
        try:
            return await read_reply(response, method, self._limit)
        except KernelError:
            elsewhere = response.redirect()
            if elsewhere is None or not redirects:
                raise
        return await self._follow(_Target(elsewhere), method, params, chunks, redirects - 1)

    async def _send(self, target: _Target, params: bytes, chunks: Chunks | None) -> Response:
        """Send one POST, and read the JSON of its response: the whole body, or the last line of a stream."""
        url = target.url
        response = await self._post(target, params)
        body = Body(response, url, self._limit)
        content, fault = b"", None
        try:
            content = await (read_final(body, chunks) if body.media_type == MEDIA_TYPE else body.read())
        except KernelError as error:  # it may be the page of a redirect
            fault = error
        finally:
            await body.aclose()
        return Response(url, response.status_code, response.headers, content, fault)

    async def _post(self, target: _Target, params: bytes) -> httpx.Response | Exchange:
        """Send one POST, and wait for the head of its response."""
        trace = traceparent(params)
        if isinstance(self._transport, Pool):
            target.head = target.head or request_head("POST", target.url, self._headers)
            told = b"traceparent: %b\r\n" % trace if trace else b""
            head = b"%bcontent-length: %d\r\n%b" % (target.head, len(params), told)
            return await self._transport.exchange(head, params)
        if self._transport is None:
            raise Internal(f"{self._url}: a request before the start")
        headers = [*self._headers, (b"content-length", b"%d" % len(params))]
        if trace:
            headers.append((b"traceparent", trace))
        request = httpx.Request("POST", target.url, headers=headers, stream=httpx.ByteStream(params))
        return await self._transport.handle_async_request(request)


@attrs.define(eq=False)
class _Target:
    """Where a request goes. ``head`` is that of a request there, once it is made."""

    url: httpx.URL
    head: bytes = b""


def _make_transport(fields: HttpFields) -> httpx.AsyncBaseTransport:
    """Make a pool, or httpx's own transport for a proxy or HTTP/2. Raises ``Unreachable``.

    httpx's own may keep a second response that no request asked for, and give it to the next request: so it keeps no
    connection through a proxy. In HTTP/2 each response names its request.
    """
    if fields.proxy is None and not fields.http2:
        return Pool(fields.url, fields.trust() if fields.url.scheme == "https" else None, bind=True)
    from ._small_reads import SmallReads  # noqa: PLC0415 - it imports httpcore, which other modules do not need

    tls = fields.trust()
    proxy = fields.proxy and httpx.Proxy(fields.proxy, ssl_context=tls if fields.proxy.scheme == "https" else None)
    make = functools.partial(httpx.AsyncHTTPTransport, verify=tls, trust_env=False, proxy=proxy)
    make_reads = functools.partial(SmallReads, http2=fields.http2 and proxy is None, tls=fields.url.scheme == "https")
    if fields.http2:
        return Http2(lambda: _reading(make_reads(), make(http1=False, http2=True)))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return _reading(make_reads(), make(limits=limits))[0]


def _reading(reads: SmallReads, transport: httpx.AsyncHTTPTransport) -> tuple[httpx.AsyncHTTPTransport, SmallReads]:
    transport._pool._network_backend = reads  # noqa: SLF001 - httpx hands on every argument of httpcore's but this one
    return transport, reads
