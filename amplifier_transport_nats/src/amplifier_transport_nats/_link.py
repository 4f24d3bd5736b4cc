"""The connection of one kernel to NATS, with one inbox for all requests of all its modules.

Owns who gets what comes in, and whose worker has fallen silent. It is opened by the first request, and again by the
first one after it was lost: calls in flight fail then, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import attrs

from amplifier_core import KernelError, Unreachable

from . import _wire
from ._call import Call
from ._client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.msg import Msg

    from amplifier_core.hookspecs import Host

    from ._client import Client
    from ._place import Place

_NAME = "amplifier-kernel"
_LOOK_SECONDS = 0.25  # between two looks at who is silent
_AGAIN_SECONDS = 0.1  # after a connection that failed, before the next is tried
_GIVEN_UP_MAX = 10_000  # requests whose late answers are waited for
_BLOCKED = 0.5


class Link:
    """One connection. ``host.shared`` makes one for each place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._connecting: asyncio.Task[Client] | None = None
        self._failed: tuple[float, KernelError] | None = None
        self._inbox = ""
        self._calls: dict[str, Call] = {}
        self._late: dict[str, Callable[[bytes], None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looked = 0.0

    async def open(self) -> Client:
        """Give the connection, made if there is none. Raises ``Unreachable`` or ``Forbidden``."""
        if self._client is not None and self._client.is_connected:
            return self._client
        if self._client is not None:
            self._lose(self._client)
        if self._failed is not None and self._loop.time() < self._failed[0]:
            failed = self._failed[1]
            raise type(failed)(failed.message, details=failed.details)
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect(), name="connecting to NATS")
            self._connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(self._connecting)
        except KernelError as failed:
            raise type(failed)(failed.message, details=failed.details) from None

    def begin(self, subject: str, limit: int) -> Call:
        """Begin a request. Its inbox is a secret of this kernel and of the worker that gets it."""
        token, now = secrets.token_hex(8), self._loop.time()
        call = self._calls[token] = Call(subject, self._inbox + token, limit, self.tell, now)
        if self._timer is None:
            self._looked = now
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        return call

    def end(self, call: Call) -> None:
        """Forget a request. What still comes for it is nobody's."""
        token = call.inbox[len(self._inbox) :]
        self._calls.pop(token, None)
        self._late.pop(token, None)

    def give_up(self, call: Call, late: Callable[[bytes], None]) -> None:
        """Let a request go on without anybody who waits, so that its worker is told, and ``late`` gets its reply."""
        token = call.inbox[len(self._inbox) :]
        if token not in self._calls:
            return
        call.give_up(self._loop.time())
        if call.is_over:
            self.end(call)
            return
        self._late[token] = late
        if len(self._late) > _GIVEN_UP_MAX:
            self.end(self._calls[next(iter(self._late))])
        self._take_late(call, token)  # it may have come already, behind chunks that nobody read

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish a message. Raises ``Unreachable`` if there is no connection."""
        if self._client is None:
            raise Unreachable("the connection to NATS was lost")
        await self._client.send(subject, payload, reply, headers)

    def tell(self, subject: str, headers: Mapping[str, str]) -> None:
        """Publish a word to a worker, without waiting."""
        if self._client is not None:
            self._client.tell(subject, headers)

    async def close(self) -> None:
        """Close the connection. What is in flight fails."""
        client, timer = self._client, self._timer
        if self._connecting is not None:
            self._connecting.cancel()
        if timer is not None:
            timer.cancel()
        if client is not None:
            self._lose(client)
            await client.leave()

    async def _connect(self) -> Client:
        client = await connect(self._place, _NAME, self._lose, self._hear)
        try:
            self._inbox = f"{client.new_inbox()}."
            await client.subscribe(f"{self._inbox}*", cb=self._take)
            await client.flush()
            client.check()
        except BaseException as error:
            await client.leave()
            if isinstance(error, Exception):
                raise Unreachable(f"NATS: {client.last_error or error}") from error
            raise
        return client

    def _connected(self, task: asyncio.Task[Client]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        try:
            self._client, self._failed = task.result(), None
        except KernelError as error:
            self._failed = self._loop.time() + _AGAIN_SECONDS, error

    async def _take(self, msg: Msg) -> None:
        token = msg.subject[len(self._inbox) :]
        call = self._calls.get(token)
        if call is None:
            return
        call.take(msg, self._loop.time())
        if call.given_up:
            self._take_late(call, token)

    def _take_late(self, call: Call, token: str) -> None:
        """Look whether the answer of a request that was given up has come."""
        late = call.late()
        if late is None:
            return
        told = self._late.get(token)
        self.end(call)
        if told is not None and late:
            told(late)

    def _lose(self, client: Client) -> None:
        """Fail what is in flight on a connection that has ended."""
        if client is not self._client:
            return
        self._client = None
        calls, self._calls, self._late = self._calls, {}, {}
        for call in calls.values():
            call.fail(Unreachable(f"{call.subject}: the connection to NATS was lost"))

    def _hear(self, said: str) -> None:
        """Hear what the server says. If it refuses a subject, the requests there fail at once."""
        if "permissions violation" in said.lower():
            for call in list(self._calls.values()):
                if not call.worker and f'"{call.subject.lower()}"' in said.lower():
                    call.fail(Unreachable(f"{call.subject}: {said}"))

    def _look(self) -> None:
        """Fail the requests whose workers have fallen silent, and forget those whose answers nobody waits for."""
        now = self._loop.time()
        late, self._looked = now - self._looked - _LOOK_SECONDS, now
        if self._client is not None and not self._client.is_connected:
            self._lose(self._client)
        for call in list(self._calls.values()):
            if late > _BLOCKED:  # this loop was held, and has not read what came
                call.heard += late
            if now > call.until:
                self.end(call)
            elif call.is_silent(now):
                who = "its worker has been" if call.worker else "no worker took it:"
                call.fail(Unreachable(f"{call.subject}: {who} silent for {_wire.SILENCE_SECONDS:g} s"))
                if call.given_up:
                    self.end(call)
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look) if self._calls else None


@attrs.frozen
class _LinkTo:
    """What makes the link to one place: equal for equal places, so that a host has one of each."""

    place: Place

    def __call__(self) -> Link:
        return Link(self.place)


def shared_link(host: Host, place: Place) -> Link:
    """Give the one link of a kernel to a place."""
    return host.shared(_LinkTo(place))
