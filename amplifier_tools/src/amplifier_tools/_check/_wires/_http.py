"""HTTP, response by response: each request of a lane is a POST of its own, and lanes share one client.

Owns the requests, their connections, and the answers as a whole. What a body says is for `_body`.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import httpx

from amplifier_core import Unreachable
from amplifier_core.hookspecs import encode
from amplifier_transport_http import Response, read_fields

from ._body import Bodies
from ._lane import Answer, Lane, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from amplifier_core import ModuleDescriptor
    from amplifier_tools._check._report import Report

    from ._lane import Request

__all__ = ["HttpWire"]

_REDIRECTS_MAX = 5
_CONNECT_SECONDS = 5.0
_LINGER_MAX = 1.0
_HEADERS = {
    "accept": "application/json, application/x-ndjson",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "amplifier-kernel check",
}


class HttpWire(Wire):
    """A server elsewhere."""

    rules = ("MSG-03", "MSG-07", *(f"HTTP-{n:02}" for n in range(1, 10)), "CANCEL-03")

    def __init__(self, descriptor: ModuleDescriptor, report: Report) -> None:
        self._fields = fields = read_fields(descriptor, reserved="x-request-id")
        self._limit = descriptor.message_bytes
        self._report = report
        self._slots = asyncio.Semaphore(descriptor.limits.concurrency or 1024)
        self._client = httpx.AsyncClient(
            headers={**_HEADERS, **fields.headers},
            verify=fields.trust() if "https" in (fields.url.scheme, fields.proxy and fields.proxy.scheme) else False,
            proxy=fields.proxy,
            http2=fields.http2,
            trust_env=False,
            timeout=None,  # noqa: S113 - the lane keeps the time
        )

    async def open(self) -> Lane:
        """Begin a lane. The first one finds out whether somebody answers there at all."""
        if not self._report.runs_as:
            await self._reach()
            self._report.runs_as = "elsewhere: nothing here confines it"
        return HttpLane(self._client, str(self._fields.url).rstrip("/"), self._limit, self._report, self._slots)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _reach(self) -> None:
        """Raise ``Unreachable`` if nobody listens there, or at the proxy: that is no flaw of the module's."""
        host, _, port = self._fields.endpoints[-1].rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{self._fields.url}: nobody listens there: {str(error) or 'no answer'}") from error
        writer.close()
        await writer.wait_closed()


class HttpLane(Lane):
    """Requests to one server."""

    cancel_rule = "CANCEL-03"

    def __init__(
        self, client: httpx.AsyncClient, url: str, limit: int, report: Report, slots: asyncio.Semaphore
    ) -> None:
        super().__init__(report)
        self._client = client
        self._url = url
        self._bodies = Bodies(limit, self.broke)
        self._slots = slots

    async def ask(self, request: Request) -> Answer:
        """Send a request, and read its response."""
        self.during = request.subject
        async with self._slots:
            try:
                return await self.wait(asyncio.ensure_future(self._follow(request)), request.seconds)
            except TimeoutError:
                self.broke("MSG-01", f"no whole answer within {request.seconds:g} s")
            except httpx.TransportError as error:
                self.broke("HTTP-09", f"no whole response: {type(error).__name__}: {error}")
        self.usable = False
        return Answer()

    async def cancel(self, request: Request) -> bool:
        """Send a request, and close its connection. Then wait as long as its work takes: it may fail at its end."""
        self.during = f"{request.subject}, cancelled"
        sent = asyncio.Event()

        async def trace(step: str, _: Mapping[str, Any]) -> None:
            if step.endswith("send_request_body.complete"):
                sent.set()

        async with self._slots:
            tasks = {asyncio.ensure_future(self._once(request, trace)), asyncio.ensure_future(sent.wait())}
            await asyncio.wait(tasks, timeout=request.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(min(2 * request.takes, _LINGER_MAX))
        return True

    async def _once(self, request: Request, trace: Callable[..., Awaitable[None]]) -> None:
        async with self._stream(f"{self._url}/{request.method}", request, "cancelled", {"trace": trace}) as response:
            await response.aread()

    async def close(self, *, seen: bool) -> bool:  # noqa: ARG002 - it ends nothing elsewhere
        """End the lane; the client is the wire's."""
        return True

    async def _follow(self, request: Request) -> Answer:
        url = httpx.URL(f"{self._url}/{request.method}")
        for _ in range(_REDIRECTS_MAX):
            token = secrets.token_hex(8)
            async with self._stream(str(url), request, token) as response:
                if (known := response.headers.get("x-request-id", token)) != token:
                    self.broke("HTTP-08", f"x-request-id is {known!r}, and was sent as {token!r}")
                target = Response(url, response.status_code, response.headers, b"").redirect()
                if target is None:
                    reply, body = await self._bodies.read(response, request.method)
                    return Answer(reply=reply, line=body)
                url = target
        self.broke("HTTP-09", f"more than {_REDIRECTS_MAX} redirects")
        return Answer()

    def _stream(
        self, url: str, request: Request, token: str, extensions: Mapping[str, Any] | None = None
    ) -> AbstractAsyncContextManager[httpx.Response]:
        content = encode({} if request.params is None else dict(request.params), "params")
        headers = {"x-request-id": token}
        if request.params is not None and "request_id" in request.params:
            headers["traceparent"] = f"00-{request.params['request_id']}-{request.params['span_id']}-01"
        return self._client.stream("POST", url, content=content, headers=headers, extensions=dict(extensions or {}))
