"""One remote module: what the kernel asks becomes a POST, and the response becomes the reply.

Owns the way of one request. The connections are the pool's, the deadlines the kernel's.
"""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING

import httpx

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import causes

from ._body import Body, UnfitBody, read_whole
from ._http2 import Http2
from ._ndjson import MEDIA_TYPE, read_final
from ._pool import Pool
from ._reply import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Isolation, Message

    from ._fields import Fields

_METHODS = ("health", "describe", "invoke")
_HOPS = 5  # redirects that one request may meet
_HEADERS = {
    "user-agent": "amplifier-transport-http",
    "accept": f"application/json, {MEDIA_TYPE}",
    "accept-encoding": "identity",  # between neighbours, packing costs more than it saves
    "content-type": "application/json",
}


class RemoteModule:
    """A ``Connection`` to a module that runs elsewhere. Between requests it keeps sockets, and nothing else."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: Fields) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith("sys:"))
        self._limit = descriptor.message_bytes
        self._fields = fields
        self._url = fields.url
        self._urls = {method: httpx.URL(f"{fields.url}/{method}") for method in _METHODS}
        given = {name.lower(): value for name, value in fields.headers}
        self._headers = httpx.Headers({"host": fields.url.netloc.decode()} | _HEADERS | given).raw
        self._transport: httpx.AsyncBaseTransport | None = None

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:  # noqa: ARG002 - elsewhere
        """Make the transport of httpx. Whether a module is at the other end, ``health`` finds out."""
        try:
            self._transport = _transport(self._fields)
        except OSError as error:
            raise self._unreachable(f"no certificates to trust in {self._fields.ca}: {error}", error) from error

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Carry one request. Being cancelled closes its connection, which is how the module learns of it."""
        try:
            return await self._follow(self._urls[method], method, params, chunks)
        except httpx.TransportError as error:
            raise self._unreachable(str(error), error) from error

    async def close(self) -> None:
        """Close all connections; requests in flight fail at once."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _follow(
        self, url: httpx.URL, method: str, params: bytes, chunks: Chunks | None, hops: int = _HOPS
    ) -> Message:
        """Ask, and ask again where a redirect within the origin says so, unless it carries a reply itself."""
        answer = await self._ask(url, params, chunks)
        try:
            return answer.reply(method)
        except KernelError:
            target = answer.redirect()
            if target is None or not hops:
                raise
        return await self._follow(target, method, params, chunks, hops - 1)

    async def _ask(self, url: httpx.URL, params: bytes, chunks: Chunks | None) -> Answer:
        if self._transport is None:
            raise Internal(f"{self._url}: a request came before the start")
        headers = [*self._headers, (b"content-length", b"%d" % len(params))]
        request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(params))
        response = await self._transport.handle_async_request(request)
        try:
            body = await self._read(response, chunks)
        except UnfitBody as error:
            raise Internal(
                f"{url} answered with {error}", details={"http_status": response.status_code, "url": str(url)}
            ) from error
        finally:
            assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - for the type checker
            await response.stream.aclose()
        return Answer(url, response.status_code, response.headers, body)

    async def _read(self, response: httpx.Response, chunks: Chunks | None) -> bytes:
        """Read the JSON that the answer comes down to: the whole body, or the last line of a stream."""
        body = Body(response)
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE:
            return await read_final(body, self._limit, chunks)
        return await read_whole(body, self._limit)

    def _unreachable(self, why: str, error: Exception) -> Unreachable:
        return Unreachable(f"{self._url}: {why}", details={"url": str(self._url), "causes": causes(error)})


def _transport(fields: Fields) -> httpx.AsyncBaseTransport:
    """Give the pool, or httpx's own transport for what that alone can do. Raises ``OSError``.

    httpx's may keep a second response that nobody asked for, and give it to the next request: so it keeps no connection
    through a proxy. In HTTP/2 each response says whose it is.
    """
    if fields.proxy is None and not fields.http2:
        tls = _trust(fields.ca) if fields.url.scheme == "https" else None  # 20 ms that plain HTTP need not pay
        return Pool(fields.url, tls)
    tls = _trust(fields.ca)
    proxy = fields.proxy and httpx.Proxy(fields.proxy, ssl_context=tls if fields.proxy.scheme == "https" else None)
    make = functools.partial(httpx.AsyncHTTPTransport, verify=tls, trust_env=False, proxy=proxy)
    if fields.http2:
        return Http2(functools.partial(make, http1=False, http2=True))
    return make(limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))


def _trust(ca: Path | None) -> ssl.SSLContext:
    """Say whose certificates count: the authorities that httpx brings, or one file; never what the environment says."""
    return httpx.create_ssl_context(trust_env=False) if ca is None else ssl.create_default_context(cafile=ca)
