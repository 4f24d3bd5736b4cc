"""A server as a child process, for the SDK's client: MCP's stdio transport, on a child process of the stdio transport.

Owns lines as messages, and what is wrong with them. The SDK's own transport is not used: invalid UTF-8 ends it, a
server's children survive it, and a line of 32 MB takes it seconds.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Literal

import mcp_types as types
from mcp.shared.message import SessionMessage

from amplifier_core.hookspecs import decode, decode_large

from ._streams import IncomingStream, OutgoingStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core import KernelError
    from amplifier_transport_stdio import Launcher

    from ._correlator import Correlator

_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')
_VERSION: Literal["2.0"] = "2.0"


class StdioStreams:
    """A process, and the streams by which the SDK's client talks to it. ``ended`` is called with the cause, once."""

    def __init__(self, launcher: Launcher, correlator: Correlator, ended: Callable[[KernelError], None]) -> None:
        self._correlator = correlator
        self._ended = ended
        self._incoming: asyncio.Queue[SessionMessage | None] = asyncio.Queue()  # None wakes the reader at the end
        self._over = False
        self.child = launcher.start(self)

    @property
    def stale(self) -> bool:
        """Whether the next request needs another process."""
        return not self.child.usable

    async def __aenter__(self) -> tuple[IncomingStream, OutgoingStream]:
        """Give the streams."""
        return IncomingStream(self._receive), OutgoingStream(self._send)

    async def __aexit__(self, *_: object) -> None:
        """Leave the process to its owner."""

    async def _receive(self) -> SessionMessage:
        message = await self._incoming.get()
        if self._over or message is None:
            raise StopAsyncIteration
        return message

    async def _send(self, item: SessionMessage) -> None:
        """Write one message. Raises ``BrokenPipeError`` for a request that the process cannot read."""
        if self._over:
            return
        message = item.message
        self._correlator.on_send(message)
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            self.child.write(line, now=True)
        except BrokenPipeError:  # it ended unnoticed, or closed its stdin: the exit follows, and has the cause
            self.child.kill()
            if isinstance(message, types.JSONRPCRequest):
                raise

    # What the process calls.

    def on_end(self, error: KernelError | None) -> None:
        """Fail what is in flight, and what is still sent; the first error stands."""
        if error is not None and not self._over:
            self._over = True
            self._incoming.put_nowait(None)
            self._ended(error)

    def on_line(self, line: bytes) -> None:
        """Take one message, or what is none."""
        try:
            message = read_message(decode(line, self.child.limit))
        except ValueError as error:
            self._on_broken_line(line, str(error))
        else:
            self._on_message(line, message)

    async def on_large_line(self, line: bytes) -> None:
        """Take one message that is large, and let others run meanwhile."""
        try:
            message = read_message(await decode_large(line, self.child.limit))
        except ValueError as error:
            self._on_broken_line(line, str(error))
        else:
            self._on_message(line, message)

    def _on_message(self, line: bytes, message: types.JSONRPCMessage) -> None:
        if isinstance(message, types.JSONRPCResponse) and (call := self._correlator.call(message.id)) is not None:
            call.size = len(line)
            self.child.answered()
        if self._correlator.on_receive(message):
            self._incoming.put_nowait(SessionMessage(message))

    def _on_broken_line(self, line: bytes, why: str) -> None:
        """Fail the call that a broken line names; a line that names none is noise."""
        found = _ID.search(line)
        if found is None or self._correlator.call(int(found[1])) is None:
            self.child.count_noise(line)
            return
        fault = self._correlator.keep_error(self.child.broke_contract(line, why))
        self._incoming.put_nowait(SessionMessage(failed(int(found[1]), fault)))


def read_message(value: Any) -> types.JSONRPCMessage:
    """Make a message of decoded JSON, or raise ``ValueError`` with what is wrong with it.

    Nothing is copied and nothing looked at twice: the SDK's models would do both, and it checks results itself.
    """
    if not isinstance(value, dict) or value.get("jsonrpc") != _VERSION:
        raise ValueError("expected a message of JSON-RPC 2.0")
    if isinstance(method := value.get("method"), str):
        params = value.get("params")
        if params is not None and not isinstance(params, dict):
            raise ValueError("params: expected an object")
        if "id" not in value:
            return types.JSONRPCNotification.model_construct(jsonrpc=_VERSION, method=method, params=params)
        return types.JSONRPCRequest.model_construct(jsonrpc=_VERSION, id=_id(value), method=method, params=params)
    if ("result" in value) == ("error" in value):
        raise ValueError("expected a method, a result or an error")
    if isinstance(result := value.get("result"), dict):
        return types.JSONRPCResponse.model_construct(jsonrpc=_VERSION, id=_id(value), result=result)
    error = value.get("error")
    if isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
        data = types.ErrorData.model_construct(code=error["code"], message=error["message"], data=error.get("data"))
        return types.JSONRPCError.model_construct(jsonrpc=_VERSION, id=value.get("id"), error=data)
    raise ValueError("expected a result that is an object, or an error with its code and message")


def failed(request_id: int | str, fault: str) -> types.JSONRPCError:
    """Make the reply by which a fault of ours goes through the SDK to its call."""
    error = types.ErrorData(code=types.INTERNAL_ERROR, message="the transport failed this call", data=fault)
    return types.JSONRPCError(jsonrpc=_VERSION, id=request_id, error=error)


def _id(value: Mapping[str, Any]) -> int | str:
    request_id = value.get("id")
    if type(request_id) is int or isinstance(request_id, str):
        return request_id
    raise ValueError("id: expected a number or text")
