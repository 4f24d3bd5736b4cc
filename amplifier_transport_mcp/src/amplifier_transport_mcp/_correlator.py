"""The messages between one client and its server: calls in flight, their progress, and the server's own requests.

Owns which message belongs to which call. It looks at every message on its way, on either transport, and does no I/O:
the SDK pairs requests and replies, but does not say for which of several calls a message came.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from mcp_types import JSONRPCNotification, JSONRPCRequest

from ._codes import again
from ._server_requests import CLIENT_METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mcp_types import JSONRPCMessage, RequestId

    from amplifier_core import KernelError
    from amplifier_core.hookspecs import Chunks

    from ._fields import Inputs


class ServerRequest:
    """A request of the server's in the middle of a call. ``response`` gives the result, or raises."""

    def __init__(self, method: str, params: Mapping[str, Any]) -> None:
        self.method = method
        self.params = params
        self.response: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def accept(self, result: object) -> None:
        """Give the result, unless the server was answered, or has given up."""
        if not self.response.done():
            self.response.set_result(result)

    def refuse(self, error: KernelError) -> None:
        """Give the reason for which there is no result, unless the server was answered, or has given up."""
        if not self.response.done():
            self.response.set_exception(again(error))


class Call:
    """One call of one task, which may take several requests. ``token`` names it in progress notifications."""

    def __init__(self, token: str, chunks: Chunks | None) -> None:
        self.token = token
        self.chunks = chunks
        self.ids: list[RequestId] = []  # of its requests, one after the other
        self.http_status: int | None = None
        self.cut = False  # its stream ended before the reply, and could be resumed
        self.size = 0  # bytes of the message with its reply, if known
        self.server_request_ids: list[RequestId] = []  # of requests that came with its replies
        self.refused: list[str] = []  # methods of the server's requests that the SDK refuses
        self.has_server_request = asyncio.Event()
        self._server_requests: list[ServerRequest] = []

    def add(self, request: ServerRequest) -> None:
        """Note a request of the server's."""
        self._server_requests.append(request)
        self.has_server_request.set()

    def take_server_requests(self) -> list[ServerRequest]:
        """Give the requests of the server's that have come since the last time."""
        requests, self._server_requests = self._server_requests, []
        self.has_server_request.clear()
        return requests


class Correlator:
    """The messages of one client, from its first to its last."""

    def __init__(self, inputs: Inputs) -> None:
        self.tools_changed = False
        self.idle = asyncio.Event()  # no call is in flight
        self.idle.set()
        self._offered = {*inputs.handlers, *(() if inputs.roots is None else ("roots/list",))}
        self._nonce = secrets.token_hex(8)  # the server does not know it, and so cannot name an error of ours
        self._count = 0  # of calls and errors, for their names
        self._errors: dict[str, KernelError] = {}
        self._by_task: dict[asyncio.Task[Any] | None, Call] = {}
        self._by_token: dict[str, Call] = {}
        self._by_id: dict[RequestId, Call] = {}
        self._callers: dict[RequestId, Call] = {}

    def new_call(self, chunks: Chunks | None) -> Call:
        """Make a call that is not in flight yet."""
        self._count += 1
        return Call(f"c{self._count}", chunks)

    @contextlib.contextmanager
    def in_flight(self, call: Call) -> Iterator[None]:
        """Hold a call to be made by the current task."""
        task = asyncio.current_task()
        self._by_task[task] = self._by_token[call.token] = call
        self.idle.clear()
        try:
            yield
        finally:
            del self._by_task[task], self._by_token[call.token]
            for request_id in call.ids:
                self._by_id.pop(request_id, None)
            for request_id in call.server_request_ids:
                self._callers.pop(request_id, None)
            if not self._by_token:
                self.idle.set()

    def call(self, request_id: RequestId) -> Call | None:
        """Give the call in flight that a request of ours belongs to."""
        return self._by_id.get(request_id)

    def on_send(self, message: JSONRPCMessage) -> None:
        """Look at a message that the SDK sends, in the task that makes the call."""
        if isinstance(message, JSONRPCRequest) and (call := self._by_task.get(asyncio.current_task())) is not None:
            call.ids.append(message.id)
            self._by_id[message.id] = call

    def on_receive(self, message: JSONRPCMessage) -> bool:
        """Look at a message that came, and tell whether the SDK needs to see it.

        The SDK makes a task of each notification, and has no use for most of them.
        """
        if isinstance(message, JSONRPCRequest):
            self._on_request(message)
        if not isinstance(message, JSONRPCNotification):
            return True
        if message.method == "notifications/progress":
            self._on_progress(message.params or {})
        elif message.method == "notifications/tools/list_changed":
            self.tools_changed = True
        return message.method == "notifications/cancelled"

    def attribute(self, request_id: RequestId, for_id: RequestId) -> None:
        """Note that a request of the server's came with the reply to one of ours."""
        if (call := self.call(for_id)) is not None:
            self._callers[request_id] = call
            call.server_request_ids.append(request_id)

    def caller(self, request_id: RequestId) -> Call | None:
        """Give the call that a request of the server's belongs to: the one it came with, or else the only one."""
        if (call := self._callers.get(request_id)) is not None:
            return call
        return next(iter(self._by_token.values())) if len(self._by_token) == 1 else None

    def keep_error(self, error: KernelError) -> str:
        """Keep an error that passes through the SDK to its call, and give its name there."""
        self._count += 1
        name = f"{self._nonce}:{self._count}"
        self._errors[name] = error
        return name

    def take_error(self, name: object) -> KernelError | None:
        """Give the error of that name, once."""
        return self._errors.pop(name, None) if isinstance(name, str) else None

    def _on_request(self, message: JSONRPCRequest) -> None:
        """Note a request that the SDK is going to refuse, because the server was not offered that method."""
        if message.method in CLIENT_METHODS and message.method not in self._offered:
            call = self.caller(message.id)
            if call is not None:
                call.refused.append(message.method)

    def _on_progress(self, params: Mapping[str, Any]) -> None:
        token = params.get("progressToken")
        call = self._by_token.get(token) if isinstance(token, str) else None
        if call is None or call.chunks is None:
            return
        chunk = {name: params[name] for name in ("progress", "total", "message") if params.get(name) is not None}
        call.chunks.put(chunk, len(str(chunk)))
