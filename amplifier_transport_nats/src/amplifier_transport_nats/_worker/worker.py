"""The worker of one module: it takes requests from the queue group of its subject until it is told to stop.

Owns the connection to NATS, which is made again when it is lost, and the requests in flight, which are not: nobody
could know what was lost of them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from amplifier_core import KernelError, Unreachable
from amplifier_transport_nats import _wire
from amplifier_transport_nats._client import connect
from amplifier_transport_nats._wire import METHODS, QUEUE

from .serving import Serving

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from amplifier_core.hosting import HostedModule
    from amplifier_transport_nats._client import Client
    from amplifier_transport_nats._place import Place

    from .service import Service

_log = logging.getLogger("amplifier_transport_nats")
_NAME = "amplifier-worker"
_REQUESTS_MAX = 4096  # in flight, with those that wait for their turn: beyond, the kernel hears at once that it is busy
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = (0.1, 0.2, 0.5, 1.0)
_GRACE_SECONDS = 2.0  # for requests that are cancelled at the end


class Worker:
    """Serves a module that is started. ``limit`` bounds a request, in bytes."""

    def __init__(self, module: HostedModule, service: Service, place: Place, subject: str, limit: int) -> None:
        self._module, self._service = module, service
        self._place, self._subject, self._limit = place, subject, limit
        self._client: Client | None = None
        self._subscriptions: list[Subscription] = []
        self._inbox = ""
        self._count = 0
        self._servings: dict[str, Serving] = {}
        self._lost = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Connect, and take requests from now on. Raises ``Unreachable`` or ``Forbidden``."""
        self._lost.clear()
        client = await connect(self._place, f"{_NAME} {self._subject}", self._lose, self._hear)
        try:
            self._inbox = f"{client.new_inbox()}."
            await client.subscribe(f"{self._inbox}*", cb=self._control)
            await self._service.listen(client, self._inbox.split(".")[1])
            self._client = client
            self._subscriptions = [
                await client.subscribe(f"{self._subject}.{method}", QUEUE, cb=partial(self._take, method))
                for method in METHODS
            ]
            await client.flush()
            client.check()
        except Exception as error:
            self._client = None
            await client.leave()
            raise Unreachable(f"NATS: {client.last_error or error}") from error
        _log.info("serving %s at %s", self._subject, client.connected_url.netloc if client.connected_url else "NATS")

    async def serve(self, stop: asyncio.Event) -> None:
        """Take requests until ``stop`` is set. A connection that is lost is made again."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                lost = asyncio.ensure_future(self._lost.wait())
                await asyncio.wait((lost, stopping), return_when=asyncio.FIRST_COMPLETED)
                lost.cancel()
                if self._lost.is_set():
                    await self._again(stop)
        finally:
            stopping.cancel()

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and end those that are in flight: by themselves in so many seconds, or else not."""
        client = self._client
        if client is None:
            return
        try:
            await asyncio.gather(*(each.drain() for each in self._subscriptions))  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - the connection was lost meanwhile
            _log.warning("could not drain: %s", error)
        await self._until_idle(seconds)
        if self._servings:
            _log.warning("%d requests had not ended after %g s", len(self._servings), seconds)
        self._end_all(Unreachable("its worker was stopped"))
        await self._until_idle(_GRACE_SECONDS)
        self._client = None
        await client.leave()

    async def _again(self, stop: asyncio.Event) -> None:
        """Connect again, for as long as it takes."""
        tries = 0
        while not stop.is_set():
            try:
                await self.start()
            except KernelError as error:
                pause = _AGAIN_SECONDS[min(tries, len(_AGAIN_SECONDS) - 1)]
                (_log.warning if tries == 0 else _log.debug)("%s", error.message)
                tries += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
            else:
                return

    async def _take(self, method: str, msg: Msg) -> None:
        """Take a request. It is served in a task of its own."""
        client = self._client
        if client is None or not msg.reply:
            return
        if len(self._servings) >= _REQUESTS_MAX:
            busy = _wire.failure("unreachable", f"its worker has {_REQUESTS_MAX} requests in flight", {})
            client.do(client.send(msg.reply, busy, "", _wire.FAILED))
            return
        self._count += 1
        token = str(self._count)
        serving = Serving(client, self._module, method, msg, self._inbox + token, self._limit)
        self._servings[token] = serving
        serving.task = asyncio.create_task(serving.run(), name=f"{method} {token}")
        serving.task.add_done_callback(partial(self._done, token))
        if self._timer is None:
            self._look()

    async def _control(self, msg: Msg) -> None:
        serving = self._servings.get(msg.subject[len(self._inbox) :])
        if serving is not None:
            serving.hear(msg)

    def _done(self, token: str, _: object) -> None:
        serving = self._servings.pop(token)
        seconds = asyncio.get_running_loop().time() - serving.began
        self._service.count(serving.method, seconds, serving.failure)
        if not self._servings:
            self._idle.set()

    def _look(self) -> None:
        """Remind the kernels of the requests that take long."""
        loop = asyncio.get_running_loop()
        for serving in self._servings.values():
            serving.remind(loop.time())
        self._timer = loop.call_later(_LOOK_SECONDS, self._look) if self._servings else None

    def _lose(self, client: Client) -> None:
        """Give up what is in flight: what is lost of it, nobody knows."""
        if client is self._client:
            _log.warning("the connection to NATS was lost")
            self._client = None
            self._end_all(Unreachable("the connection to NATS was lost"))
            self._lost.set()

    def _end_all(self, error: KernelError) -> None:
        for serving in list(self._servings.values()):
            serving.end(error)

    async def _until_idle(self, seconds: float) -> None:
        self._idle.clear()
        if self._servings:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    def _hear(self, said: str) -> None:
        _log.warning("NATS: %s", said)
