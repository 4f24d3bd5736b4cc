"""The connection to one module that is served by workers: each request of the kernel goes to one of them.

Owns what a reply has to be. Which worker gets a request, NATS decides. Nothing is sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from amplifier_core import Cancelled, Internal, Unreachable
from amplifier_core.hookspecs import LARGE, Connection, NotJson, decode_message, decode_message_large

from . import _wire
from ._enforced import unenforced_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Message, Notify

    from ._call import Call
    from ._client import Client
    from ._fields import NatsFields
    from ._link import Link

_LATE = "events: they came with the reply to a request that had been cancelled"
_STREAM = {_wire.CHUNKS: "yes"}


class NatsConnection(Connection):
    """The connection to the workers of one subject."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: NatsFields, link: Link, notify: Notify) -> None:
        self._capabilities = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self.unenforced = self._capabilities
        self.endpoints = fields.place.endpoints
        self._limit = descriptor.message_bytes
        self._subject = fields.subject
        self._link = link
        self._notify = notify
        self._calls: dict[Call, None] = {}
        self._closed = False

    async def survey(self) -> None:
        """Ask a worker what its host enforces."""
        _, text = await self._exchange("describe", b"{}", None)
        self.unenforced = unenforced_there(text, self._capabilities)

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - elsewhere
        """Connect to NATS, if no other module has done so."""
        await self._link.open()

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Send one request to any worker, and give its reply. Cancelling it cancels it there."""
        reply, _ = await self._exchange(method, params, chunks)
        return reply

    async def close(self) -> None:
        """Fail what is in flight, and tell the workers."""
        self._closed = True
        for call in list(self._calls):
            call.fail(self._unmounted())

    def clues(self) -> dict[str, Any]:
        """Give the place where no answer comes from."""
        return {"subject": self._subject, "servers": list(self.endpoints)}

    async def _exchange(self, method: str, params: bytes, chunks: Chunks | None) -> tuple[Message, bytes]:
        """Send one request, and give its reply, decoded and as it came."""
        client = await self._link.open()
        if self._closed:
            raise self._unmounted()
        call = self._link.begin(f"{self._subject}.{method}", self._limit)
        self._calls[call] = None
        answered = False
        try:
            await self._send(client, call, params, _STREAM if chunks is not None else {})
            del params  # they may be large
            reply = await self._reply(call, chunks)
            answered = True
            return reply
        finally:
            del self._calls[call]
            if answered:
                self._link.end(call)
            else:
                self._link.give_up(call, self._tell_late)

    def _unmounted(self) -> Unreachable:
        return Unreachable(f"{self._subject}: the module was unmounted")

    async def _send(self, client: Client, call: Call, params: bytes, headers: dict[str, str]) -> None:
        """Send a request: a large one in parts, the first to any worker, and the others to the one that took it."""
        size = _wire.part_size(client.max_payload)
        if len(params) <= size:
            await self._link.publish(call.subject, params, call.inbox, headers)
            return
        sent = 0
        for part, data in _wire.parts_of(params, size):
            if not sent:
                await self._link.publish(call.subject, data, call.inbox, part | headers)
                await call.taken()
            elif not await call.room(sent):
                return
            else:
                await self._link.publish(call.worker, data, call.inbox, part)
            sent += len(data) + _wire.COST

    async def _reply(self, call: Call, chunks: Chunks | None) -> tuple[Message, bytes]:
        """Pass each chunk on, and give the reply."""
        while True:
            text = await call.message()
            message = await self._read(call, text)
            if message.is_reply():
                if chunks is not None and call.dropped:
                    chunks.count_dropped(call.dropped)
                return message, text
            if message.chunk is UNSET:
                raise Internal(f"{call.subject}: the answer is none of the three shapes of section 2")
            if chunks is not None and not chunks.put(message.chunk, message.size):
                await call.pause(chunks)
            call.acknowledge()

    async def _read(self, call: Call, text: bytes) -> Message:
        try:
            if len(text) > LARGE:
                return await decode_message_large(text, self._limit)
            return decode_message(text, self._limit)
        except NotJson as error:
            raise Internal(f"{call.subject}: invalid message: {error}") from None

    def _tell_late(self, text: bytes) -> None:
        """Report the events of a reply that nobody waits for any more. Whether a large one has any, nobody looks."""
        try:
            message = decode_message(text) if len(text) <= LARGE else None
        except NotJson:
            return
        if message is not None and message.events:
            self._notify("events:dropped", {"count": len(message.events), "first": message.events[0]}, Cancelled(_LATE))
