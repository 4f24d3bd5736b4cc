"""A server as a child process, under the SDK's client: MCP's stdio transport, on the process of the stdio transport.

Owns lines and what is wrong with them. Not the SDK's own: invalid UTF-8 ends that one, a server's children survive it,
and a line of 32 MB takes it seconds.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self

from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import NotJson, decode
from amplifier_transport_stdio import LineBuffer, LineTooLongError, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core.hookspecs import Launch, Notify
    from amplifier_transport_stdio import Orphans

    from ._traffic import Traffic

_EXIT_GRACE = 0.05
_SAMPLE = 200  # bytes of a line that was not protocol, shown
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')
_VERSION: Literal["2.0"] = "2.0"


class Pipe:
    """One life of the process, and the streams through which the SDK talks with it.

    ``fault`` says why it ended; ``stale`` that no request should be sent to it any more.
    """

    def __init__(
        self,
        launch: Launch,
        orphans: Orphans | None,
        limit: int,
        traffic: Traffic,
        notify: Notify,
        ended: Callable[[KernelError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._traffic = traffic
        self._notify = notify
        self._ended = ended
        self._lines = LineBuffer(limit)
        self._noise = 0
        self._first_noise = b""
        self.fault: KernelError | None = None
        self.stale = False
        self.incoming = _Incoming()
        self.process = Process(launch, self, orphans)

    # What the SDK's client enters, and leaves.

    async def __aenter__(self) -> tuple[_Incoming, _Outgoing]:
        """Give the streams."""
        return self.incoming, _Outgoing(self)

    async def __aexit__(self, *_: object) -> None:
        """Leave the process to its owner."""

    def send(self, message: JSONRPCMessage) -> None:
        """Write one message. Raises ``BrokenPipeError`` if it is a request, and nobody is there to read it."""
        if self.fault is not None:
            return
        self._traffic.sending(message)
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            self.process.write(line, now=True)
        except BrokenPipeError:  # it has gone unnoticed, or does not listen: `exited` follows, and has the story
            self.stale = True
            self.process.kill()
            if isinstance(message, JSONRPCRequest):
                raise

    # What the process calls.

    def received(self, data: bytes) -> None:
        """Take what the server wrote."""
        try:
            lines = self._lines.feed(data)
        except LineTooLongError:
            message = f"the server wrote a message of more than {self._limit} bytes (limits.message_bytes)"
            self.kill(Internal(message, details={"limit": self._limit}))
            return
        for line in lines:
            self._on_line(line)

    def closed_stdout(self) -> None:
        """Wait for the exit, which nearly always follows at once and has the better story; then kill."""
        self.stale = True
        self._loop.call_later(_EXIT_GRACE, self.process.kill)

    def exited(self) -> None:
        """Fail what is in flight with the cause, and report the exit and the noise."""
        outcome = self.process.outcome()
        self.end(Unreachable(f"the module went away: {_manner(outcome)}", details=outcome))
        if self._noise:
            self._notify("module:noise", self._noise_so_far())
        self._notify("module:exit", outcome)

    # What its owner calls.

    def end(self, error: KernelError) -> None:
        """Fail what is in flight, and whatever comes; the first error stands."""
        if self.fault is None:
            self.fault = error
            self.stale = True
            self.incoming.end()
            self._ended(error)

    def kill(self, error: KernelError) -> None:
        """End the process for what it did."""
        self.end(error)
        self.process.kill()

    def clues(self) -> dict[str, Any]:
        """Say what may explain that no answer comes: output that was no protocol, and the tail of stderr."""
        return {**({"noise": self._noise_so_far()} if self._noise else {}), **self.process.said()}

    def _noise_so_far(self) -> dict[str, Any]:
        return {"count": self._noise, "first": self._first_noise.decode(errors="replace")}

    def _on_line(self, line: bytes) -> None:
        try:
            message = read_message(decode(line))
        except (NotJson, ValueError) as error:
            self._on_broken_line(line, str(error))
            return
        if isinstance(message, JSONRPCResponse) and (call := self._traffic.call(message.id)) is not None:
            call.size = len(line)
        if self._traffic.wanted(message):
            self.incoming.put(SessionMessage(message))

    def _on_broken_line(self, line: bytes, why: str) -> None:
        """Fail the call that a broken line was meant for; a line that names none is noise."""
        found = _ID.search(line)
        if found is None or self._traffic.call(int(found[1])) is None:
            self._first_noise = self._first_noise or line.rstrip()[:_SAMPLE]
            self._noise += 1
            return
        details = {"line": line[:_SAMPLE].decode(errors="replace")}
        fault = self._traffic.fault(Internal(f"the module broke its contract: {why}", details=details))
        self.incoming.put(SessionMessage(failed(int(found[1]), fault)))


class _Incoming:
    """What the server wrote, as the SDK reads it: until ``end``, which fails what is in flight."""

    def __init__(self) -> None:
        self._messages: deque[SessionMessage] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False

    def put(self, message: SessionMessage) -> None:
        self._messages.append(message)
        self._wake()

    def end(self) -> None:
        self._messages.clear()
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        while not self._messages:
            if self._over:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._messages.popleft()

    receive = __anext__  # what a stream has; the SDK iterates

    async def aclose(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Outgoing:
    """What the SDK writes."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def send(self, item: SessionMessage) -> None:
        self._pipe.send(item.message)

    async def aclose(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def read_message(value: Any) -> JSONRPCMessage:
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
            return JSONRPCNotification.model_construct(jsonrpc=_VERSION, method=method, params=params)
        return JSONRPCRequest.model_construct(jsonrpc=_VERSION, id=_id(value), method=method, params=params)
    if ("result" in value) == ("error" in value):
        raise ValueError("expected a method, a result or an error")
    if isinstance(result := value.get("result"), dict):
        return JSONRPCResponse.model_construct(jsonrpc=_VERSION, id=_id(value), result=result)
    error = value.get("error")
    if isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
        data = ErrorData.model_construct(code=error["code"], message=error["message"], data=error.get("data"))
        return JSONRPCError.model_construct(jsonrpc=_VERSION, id=value.get("id"), error=data)
    raise ValueError("expected a result that is an object, or an error with its code and message")


def failed(request_id: int | str, fault: str) -> JSONRPCError:
    """Make the reply by which a fault of ours goes through the SDK to its call."""
    error = ErrorData(code=INTERNAL_ERROR, message="the transport failed this call", data=fault)
    return JSONRPCError(jsonrpc=_VERSION, id=request_id, error=error)


def _id(value: Mapping[str, Any]) -> int | str:
    request_id = value.get("id")
    if type(request_id) is int or isinstance(request_id, str):
        return request_id
    raise ValueError("id: expected a number or text")


def _manner(outcome: Mapping[str, Any]) -> str:
    return f"killed by {outcome['signal']}" if "signal" in outcome else f"exit code {outcome['exit_code']}"
