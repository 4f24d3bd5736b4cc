"""What goes between one client and its server: calls in flight, their progress, and what the server asks in return.

Owns which message belongs to which call. It looks at every message on its way, on either transport, and does no I/O:
the SDK pairs requests and replies, but tells nobody which of several calls a message came for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any

from mcp_types import JSONRPCNotification, JSONRPCRequest

from ._codes import again

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mcp_types import JSONRPCMessage, RequestId

    from amplifier_core import KernelError
    from amplifier_core.hookspecs import Chunks


ASKABLE = frozenset(("sampling/createMessage", "elicitation/create", "roots/list"))
"""What a server may ask its client."""


class Question:
    """Something that a server asks while it works on a call; ``answer`` gives the reply, or raises."""

    def __init__(self, method: str, params: Mapping[str, Any]) -> None:
        self.method = method
        self.params = params
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def accept(self, answer: object) -> None:
        """Give the answer, if the server still waits for it."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def refuse(self, error: KernelError) -> None:
        """Say why there is none, if the server still waits for it."""
        if not self.answer.done():
            self.answer.set_exception(again(error))


class Call:
    """One request on its way, made by one task. ``token`` names it in progress notifications."""

    def __init__(self, token: str, chunks: Chunks | None) -> None:
        self.token = token
        self.chunks = chunks
        self.ids: list[RequestId] = []  # of its requests, one after the other
        self.http_status: int | None = None
        self.cut = False  # its stream ended before the reply, and could be taken up again
        self.size = 0  # bytes of the message with its reply, if known
        self.asks: list[RequestId] = []  # the server's requests that came with its replies
        self.refused: list[str] = []  # what the server asked for in vain
        self.questions: deque[Question] = deque()
        self.asked = asyncio.Event()

    def ask(self, question: Question) -> None:
        """Take a question of the server's."""
        self.questions.append(question)
        self.asked.set()


class Traffic:
    """The messages of one client, from its first to its last."""

    def __init__(self, offered: Collection[str] = ()) -> None:
        self.tools_changed = False
        self.quiet = asyncio.Event()  # no call is in flight
        self.quiet.set()
        self._offered = offered  # of what a server may ask
        self._nonce = secrets.token_hex(8)  # a server cannot know it, and so cannot name a fault of ours
        self._count = 0  # of calls and faults, whose names it makes
        self._faults: dict[str, KernelError] = {}
        self._by_task: dict[asyncio.Task[Any] | None, Call] = {}
        self._by_token: dict[str, Call] = {}
        self._by_id: dict[RequestId, Call] = {}
        self._askers: dict[RequestId, Call] = {}

    def begin(self, chunks: Chunks | None) -> Call:
        """Note that the current task makes a call."""
        self._count += 1
        call = Call(f"c{self._count}", chunks)
        self._by_task[asyncio.current_task()] = call
        self._by_token[call.token] = call
        self.quiet.clear()
        return call

    def end(self, call: Call) -> None:
        """Note that the current task's call is over."""
        del self._by_task[asyncio.current_task()], self._by_token[call.token]
        for request_id in call.ids:
            self._by_id.pop(request_id, None)
        for asked in call.asks:
            self._askers.pop(asked, None)
        if not self._by_token:
            self.quiet.set()

    def call(self, request_id: RequestId | None) -> Call | None:
        """Give the call in flight that a request of ours belongs to."""
        return None if request_id is None else self._by_id.get(request_id)

    def sending(self, message: JSONRPCMessage) -> None:
        """Look at what the SDK sends, in the task that called it."""
        if isinstance(message, JSONRPCRequest) and (call := self._by_task.get(asyncio.current_task())) is not None:
            call.ids.append(message.id)
            self._by_id[message.id] = call

    def wanted(self, message: JSONRPCMessage) -> bool:
        """Take what is for us, and say whether the SDK needs to see a message that came.

        It makes a task of each notification, and has no use for most of them.
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

    def asks(self, request_id: RequestId, for_id: RequestId | None) -> None:
        """Note that a server's request came with the reply to one of ours."""
        if (call := self.call(for_id)) is not None:
            self._askers[request_id] = call
            call.asks.append(request_id)

    def asker(self, request_id: RequestId) -> Call | None:
        """Give the call that a server's request belongs to: the one it came with, or else the only one there is."""
        if (call := self._askers.get(request_id)) is not None:
            return call
        return next(iter(self._by_token.values())) if len(self._by_token) == 1 else None

    def fault(self, error: KernelError) -> str:
        """Keep an error of ours until its call comes for it, and give the name it goes by through the SDK."""
        self._count += 1
        name = f"{self._nonce}:{self._count}"
        self._faults[name] = error
        return name

    def take_fault(self, name: object) -> KernelError | None:
        """Give the error of that name."""
        return self._faults.pop(name, None) if isinstance(name, str) else None

    def _on_request(self, message: JSONRPCRequest) -> None:
        """Remember what the SDK is going to refuse, because the server was not told that it may ask."""
        if message.method in ASKABLE and message.method not in self._offered:
            call = self.asker(message.id)
            if call is not None:
                call.refused.append(message.method)

    def _on_progress(self, params: Mapping[str, Any]) -> None:
        token = params.get("progressToken")
        call = self._by_token.get(token) if isinstance(token, str) else None
        if call is None or call.chunks is None:
            return
        chunk = {name: params[name] for name in ("progress", "total", "message") if params.get(name) is not None}
        call.chunks.put(chunk, len(str(chunk)))
