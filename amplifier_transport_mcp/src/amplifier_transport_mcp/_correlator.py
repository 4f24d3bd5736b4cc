"""The messages between one client and its server: calls in flight, their progress, and the server's own requests.

Owns which message belongs to which call. It looks at every message on its way, on either transport, and does no I/O:
the SDK pairs requests and replies, but does not say for which of several calls a message came.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from mcp_types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from amplifier_core import KernelError

from ._codes import again, broke_contract
from ._messages import failed, has_more_values
from ._pace import Pace
from ._passage import Passage
from ._server_requests import CLIENT_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mcp_types import JSONRPCMessage, RequestId

    from amplifier_core.hookspecs import Chunks

    from ._fields import Inputs

    Show = Callable[[dict[str, Any], int], dict[str, Any]]

_ASKED = 64  # requests of the server's that wait for an answer
_DIGITS = 19  # of a number that fits
_ERRORS = 4096  # kept
_REFUSED = 16  # methods that an error names
_OWN_BYTES, _OWN_VALUES = 1024 * 1024, 1000  # of a reply that the SDK itself reads, as in the handshake
_ERROR_BYTES, _ERROR_TEXT = 64 * 1024, 1000  # of an error; characters that are left of a larger one
SILENCE_SECONDS = 5.0
"""Seconds for the first question, which servers before 2026 do not know: half of what the SDK would wait."""
PARAMS = 5000
"""Values of a request of the server's, and of its answer: the SDK's models take some 25 µs for each."""


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
        self.on_change: Callable[[], None] = lambda: None  # what is called when the tools have changed
        self.answered = False
        self.idle = asyncio.Event()  # no call is in flight
        self.idle.set()
        self.pace = Pace()
        self.passage = Passage()
        self._offered = {*inputs.handlers, *(() if inputs.roots is None else ("roots/list",))}
        self._nonce = secrets.token_hex(8)  # the server does not know it, and so cannot name an error of ours
        self._count = 0  # of calls and errors, for their names
        self._errors: dict[str, KernelError] = {}
        self._by_task: dict[asyncio.Task[Any] | None, Call] = {}
        self._by_token: dict[str, Call] = {}
        self._by_id: dict[RequestId, Call] = {}
        self._callers: dict[RequestId, Call] = {}
        self._last_id = 0  # of a request of ours
        self._waiting: set[int] = set()  # for their replies: the ids of requests of ours
        self._shown: dict[RequestId, Show] = {}
        self._shown_by_task: dict[asyncio.Task[Any] | None, tuple[Show, list[RequestId]]] = {}
        self._asked: set[RequestId] = set()  # by the server, which waits for the answers
        self._answered = asyncio.Event()

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

    @contextlib.contextmanager
    def showing(self, show: Show) -> Iterator[None]:
        """Let the SDK see, of the result of a request that the current task makes, what ``show`` makes of it.

        The SDK's models take longer for a large result than the loop may be held. ``show`` may raise ``KernelError``.
        """
        task = asyncio.current_task()
        ids: list[RequestId] = []
        self._shown_by_task[task] = show, ids
        try:
            yield
        finally:
            del self._shown_by_task[task]
            for request_id in ids:
                self._shown.pop(request_id, None)

    async def room(self, queued: Callable[[], int] = lambda: 0) -> None:
        """Wait until the SDK has fewer requests to answer than it may have; ``queued`` of them it has not seen yet."""
        while len(self._asked) - queued() >= _ASKED:
            self._answered.clear()
            await self._answered.wait()

    def forget_asked(self) -> None:
        """Forget what the server has asked: it is gone."""
        self._asked.clear()
        self._answered.set()

    def on_send(self, message: JSONRPCMessage) -> None:
        """Look at a message that the SDK sends, in the task that makes the call."""
        if isinstance(message, JSONRPCRequest):
            task = asyncio.current_task()
            self._last_id = int(message.id)  # the SDK counts
            self._waiting.add(self._last_id)
            if (call := self._by_task.get(task)) is not None:
                call.ids.append(message.id)
                self._by_id[message.id] = call
            if task in self._shown_by_task:
                self._shown[message.id], ids = self._shown_by_task[task]
                ids.append(message.id)
        elif isinstance(message, JSONRPCResponse | JSONRPCError):
            self._forget(message.id)
        elif message.method == "notifications/cancelled":
            self._waiting.discard((message.params or {}).get("requestId", 0))

    def on_receive(self, message: JSONRPCMessage, size: int) -> JSONRPCMessage | None:
        """Look at a message that came, and give what the SDK needs to see of it. Raises ``ValueError`` for noise.

        The SDK makes a task of each notification, and has no use for most of them.
        """
        if isinstance(message, JSONRPCRequest):
            return self._on_request(message)
        if isinstance(message, JSONRPCNotification):
            return message if self._on_notification(message.method, message.params or {}, size) else None
        request_id = self._answered_by(message)
        if not 0 < request_id <= self._last_id:
            raise ValueError(f"id: there was no request {message.id!r}")
        self.answered = True
        if request_id not in self._waiting:
            return None  # it comes late, or twice
        self._waiting.discard(request_id)
        show = self._shown.pop(request_id, _small)
        try:
            if isinstance(message, JSONRPCError):
                _shorten(message, size)
            else:
                message.result = show(message.result, size)
        except KernelError as error:
            return failed(request_id, self.keep_error(error))
        return message

    @property
    def waits_for_one(self) -> bool:
        """Whether a single request of ours waits for its reply."""
        return len(self._waiting) == 1

    def asks_first(self) -> RequestId | None:
        """Give the id of the first question to the server, if it has not been answered."""
        return None if self.answered else next(iter(self._waiting), None)

    def own_request(self) -> list[int]:
        """Give the id of the only request that waits, if it is the client's own: it belongs to no call."""
        return list(self._waiting) if self.waits_for_one and not self._by_token else []

    def waiting(self, ids: Iterable[str]) -> list[int]:
        """Give those of some ids whose requests wait for a reply."""
        return [request_id for each in ids if (request_id := _number(each)) in self._waiting]

    def awaits(self, message: JSONRPCMessage) -> bool:
        """Tell whether a message is the reply to a request of ours that waits for it."""
        return isinstance(message, JSONRPCResponse | JSONRPCError) and self._answered_by(message) in self._waiting

    def _answered_by(self, message: JSONRPCResponse | JSONRPCError) -> int:
        """Give the id of the request that a reply answers: an error without an id answers the only one that waits."""
        if message.id is None and self.waits_for_one:
            message.id = next(iter(self._waiting))
        return _number(message.id)

    def note_change(self) -> None:
        """Note that the tools are others now."""
        self.tools_changed = True
        self.on_change()

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
        if len(self._errors) > _ERRORS:  # nobody has come for the first one
            del self._errors[next(iter(self._errors))]
        return name

    def take_error(self, name: object) -> KernelError | None:
        """Give the error of that name, once."""
        return self._errors.pop(name, None) if isinstance(name, str) else None

    def _on_request(self, message: JSONRPCRequest) -> JSONRPCRequest:
        """Note a request, and whether the SDK is going to refuse it: the server was not offered that method."""
        if message.id in self._asked:
            raise ValueError(f"id: the request {message.id!r} waits for its answer")
        self._asked.add(message.id)
        if message.method in CLIENT_METHODS and message.method not in self._offered:
            call = self.caller(message.id)
            if call is not None and len(call.refused) < _REFUSED:
                call.refused.append(message.method)
        if has_more_values(message.params, PARAMS):
            message.params = None  # the SDK answers that they are invalid
        return message

    def _on_notification(self, method: str, params: Mapping[str, Any], size: int) -> bool:
        """Take a notification, and tell whether the SDK needs to see it."""
        if method == "notifications/progress":
            self._on_progress(params, size)
        elif method == "notifications/tools/list_changed":
            self.note_change()
        elif method == "notifications/cancelled":
            cancelled = params.get("requestId")
            return isinstance(cancelled, int | str) and self._forget(cancelled)
        return False

    def _forget(self, request_id: RequestId | None) -> bool:
        """Note that a request of the server's needs no answer any more, and tell whether there was one."""
        known = request_id in self._asked
        self._asked.discard(request_id)
        self._answered.set()
        return known

    def _on_progress(self, params: Mapping[str, Any], size: int) -> None:
        token = params.get("progressToken")
        call = self._by_token.get(token) if isinstance(token, str) else None
        if call is None or call.chunks is None:
            return
        chunk = {name: params[name] for name in ("progress", "total", "message") if params.get(name) is not None}
        call.chunks.put(chunk, size)


def _number(request_id: RequestId | None) -> int:
    """Give the id of a request of ours; a server may have made text of it. 0: it is none."""
    if isinstance(request_id, str):
        return int(request_id) if request_id.isdecimal() and request_id.isascii() and len(request_id) < _DIGITS else 0
    return request_id or 0


def _small(result: dict[str, Any], size: int) -> dict[str, Any]:
    """Give a result that the SDK itself reads, unless it is too large for that."""
    if size > _OWN_BYTES or has_more_values(result, _OWN_VALUES):
        raise broke_contract("the handshake", f"a reply of more than {_OWN_BYTES} bytes or {_OWN_VALUES} values")
    return result


def _shorten(message: JSONRPCError, size: int) -> None:
    """Leave of a large error its code and the beginning of its message."""
    if size > _ERROR_BYTES:
        cut = f"{message.error.message[:_ERROR_TEXT]}… (cut: its error has {size} bytes)"
        message.error = ErrorData(code=message.error.code, message=cut)
