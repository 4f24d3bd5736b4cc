"""One request that a worker has taken: its parts are put together, the module is asked, and the kernel hears of it.

Owns the state of the request. Whatever comes from the kernel's side is held to its bounds before the module gets it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core import BadRequest, Cancelled, KernelError, Unreachable
from amplifier_core.hookspecs import LARGE, Chunks, Message, NotJson, decode, decode_large, encode, encode_message
from amplifier_transport_nats import _wire
from amplifier_transport_nats._wire import COST, WINDOW, Assembly, word_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from amplifier_core.hosting import HostedModule
    from amplifier_transport_nats._client import Client

_SECONDS_MAX = 86_400.0  # of a request that names no deadline, or one further away
_LATER = 1.0  # seconds after the kernel's deadline: its cancel comes first


class Serving:
    """One request. ``control`` is the subject at which the kernel reaches this worker about it."""

    def __init__(self, client: Client, module: HostedModule, method: str, msg: Msg, control: str, limit: int) -> None:
        self.method = method
        self.began = self.told = asyncio.get_running_loop().time()  # when the kernel heard of it last
        self.failure: KernelError | None = None
        self.task: asyncio.Task[None]
        self._client, self._module, self._control, self._inbox = client, module, control, msg.reply
        self._limit = limit
        self._wants_chunks = bool(msg.headers and _wire.CHUNKS in msg.headers)
        self._parts = Assembly(limit)
        self._params: bytes | None = None
        self._received = self._sent = self._read = 0
        self._is_taken = False
        self._changed = asyncio.Event()
        self._ending: KernelError | None = None
        self._first = msg.headers, msg.data
        msg.data = b""  # nats-py keeps the last message until the next one comes

    def remind(self, now: float) -> None:
        """Tell the kernel that the request is in good hands, if it has not heard of it for a while."""
        seconds = _wire.ALIVE_SECONDS if self._is_taken else _wire.TAKEN_SECONDS
        if now - self.told >= seconds:
            self._client.do(self._say(_wire.ALIVE if self._is_taken else _wire.TAKEN))

    def hear(self, msg: Msg) -> None:
        """Hear from the kernel: a cancel, what it has read, or a part."""
        try:
            if msg.headers and _wire.STATUS in msg.headers and not msg.data:
                self.end(Cancelled("the kernel has gone"))
                return
            word, number, total = word_of(msg.headers)
            if word == "cancel":
                self.end(Cancelled("the caller gave up"))
            elif word == "read":
                self._read = max(self._read, number)
            elif word == "part":
                self._add(number, total, msg.data)
        except ValueError as error:
            self.end(BadRequest(f"the request: {error}"))
        self._changed.set()

    def end(self, error: KernelError) -> None:
        """Cancel the request. The kernel gets the error, if it still listens."""
        if self._ending is None:
            self._ending = error
            self.task.cancel()

    async def run(self) -> None:
        """Serve the request. Never raises."""
        try:
            await self._serve()
        except KernelError as error:
            self.failure = error
        except asyncio.CancelledError:
            self.failure = self._ending or Unreachable("the worker was stopped")
        except Exception as error:  # noqa: BLE001 - a request ends, whatever it is
            self.failure = KernelError.from_exception(error, "the worker")
        if self.failure is not None:
            await self._fail(self.failure)

    async def _serve(self) -> None:
        params, seconds = await self._request()
        if self._wants_chunks and self.method == "invoke":
            reply = await self._stream(params, seconds)
        else:
            reply = await self._module.request(self.method, params, None, seconds)
        text = await asyncio.to_thread(encode_message, reply) if reply.size > LARGE else encode_message(reply)
        if self.method == "describe":
            text = self._with_host(text)
        await self._send(text)

    async def _stream(self, params: bytes, seconds: float) -> Message:
        """Ask the module, and send its chunks as they come, while the kernel takes them."""
        chunks = Chunks()
        sending = asyncio.create_task(self._send_chunks(chunks))
        try:
            reply = await self._module.request(self.method, params, chunks, seconds)
            chunks.end()
            await sending
        finally:
            chunks.discard()
            sending.cancel()
            await asyncio.wait((sending,))
        self._dropped = chunks.dropped
        return reply

    async def _send_chunks(self, chunks: Chunks) -> None:
        while True:
            try:
                chunk = await chunks.get()
            except StopAsyncIteration:
                return
            await self._send(encode_message(Message(chunk=chunk)))

    async def _request(self) -> tuple[bytes, float]:
        """Give the parameters, checked, and the seconds that the module has."""
        headers, data = self._first
        del self._first
        try:
            word, number, total = word_of(headers)
            if word == "part":
                self._add(number, total, data)
            else:
                self._params = data
            del data
        except ValueError as error:
            raise BadRequest(f"the request: {error}") from None
        if self._params is None:
            await self._say(_wire.TAKEN)
        while self._params is None:
            self._changed.clear()
            await self._changed.wait()
        params = self._params
        self._params = b""
        if self.method != "invoke":
            return b"{}", _SECONDS_MAX
        return params, await _seconds(params, self._limit)

    def _add(self, offset: int, total: int, data: bytes) -> None:
        if self._params is None:
            self._received += len(data) + COST
            self._params = self._parts.add(offset, total, data)
            if self._params is None and self._received - self._sent_read >= WINDOW // 2:
                self._sent_read = self._received
                self._client.do(self._say(_wire.read(self._received)))

    _sent_read = 0
    _dropped = 0

    def _with_host(self, text: bytes) -> bytes:
        """Say beside the description what this host enforces."""
        module = self._module
        granted = [word for word in module.capabilities if not word.startswith(("sys:", "x-"))]
        told = {"isolation": module.isolation, "granted": granted, "unenforced": list(module.unenforced)}
        return b'{"host":' + encode(told, "host") + b"," + text[1:]

    async def _say(self, headers: dict[str, str]) -> None:
        self._is_taken, self.told = True, asyncio.get_running_loop().time()
        await self._client.send(self._inbox, b"", self._control, headers)

    async def _send(self, text: bytes) -> None:
        """Send a message, a large one in parts, while the kernel reads them."""
        size = _wire.part_size(self._client.max_payload)
        dropped = {_wire.DROPPED: str(self._dropped)} if self._dropped else {}
        if len(text) <= size:
            await self._publish(text, dropped)
            return
        for headers, data in _wire.parts_of(text, size):
            await self._publish(data, headers | dropped)

    async def _publish(self, data: bytes, headers: dict[str, str]) -> None:
        while self._sent + len(data) + COST - self._read > WINDOW:
            self._changed.clear()
            await self._changed.wait()
        self._sent += len(data) + COST
        self._is_taken, self.told = True, asyncio.get_running_loop().time()
        await self._client.send(self._inbox, data, self._control, headers)

    async def _fail(self, error: KernelError) -> None:
        body: dict[str, Any] = error.body()
        payload = _wire.failure(body["code"], body["message"], body.get("details", {}))
        try:
            await self._client.send(self._inbox, payload, self._control, _wire.FAILED)
        except KernelError:
            return  # nobody hears it


async def _seconds(params: bytes, limit: int) -> float:
    """Check that parameters are one JSON object on one line, and give the seconds that are left."""
    if len(params) > limit:
        raise BadRequest(f"the request: expected at most {limit} bytes (limits.message_bytes), got {len(params)}")
    try:
        told = await decode_large(params, limit) if len(params) > LARGE else decode(params, limit)
    except NotJson as error:
        raise BadRequest(f"the request: {error}") from None
    if not isinstance(told, dict) or b"\n" in params or b"\r" in params:
        raise BadRequest("the request: expected a JSON object on one line")
    left = told.get("deadline_ms")
    if not isinstance(left, int) or isinstance(left, bool) or not 0 < left < _SECONDS_MAX * 1000:
        return _SECONDS_MAX
    return left / 1000 + _LATER
