"""One invocation of one op: its request, the server's own requests meanwhile, and its result in the kernel's words.

Owns the turns. Between two of them the kernel carries out what the server asked for, and no task waits here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core import Cancelled, KernelError
from amplifier_core.hookspecs import Message

from . import _codes, _trace
from ._result import INPUT_REQUIRED
from ._server_requests import InputRequired, answers, more_params, pending, refused, resumed
from ._tools import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core.hookspecs import Chunks

    from ._correlator import Call, ServerRequest
    from ._fields import Inputs
    from ._session import ClientSession
    from ._tools import Tools

_RETRY_SECONDS = 0.05  # before a request is sent again unchanged, as the server asked
_MESSAGE = 200  # characters of a tool's own words
_DETAILS_BYTES = 64 * 1024  # of a failed tool's result, as of any module's details


class Invocation:
    """An invocation. If the server may send requests of its own meanwhile, it runs in a task of its own."""

    def __init__(
        self, session: ClientSession, tools: Tools, inputs: Inputs, op: str, args: dict[str, Any], meta: dict[str, str]
    ) -> None:
        self._session = session
        self._tools = tools
        self._inputs = inputs
        self._op = op
        self._meta = meta
        self._method = op if op in METHODS else "tools/call"
        self._params = args if op in METHODS else {"name": op, "arguments": args}
        self._call: Call
        self._task: asyncio.Task[Message]
        self._suspended: dict[str, Invocation] = {}
        self._server_requests: list[ServerRequest] = []
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, chunks: Chunks | None, resume: Mapping[str, Any] | None = None) -> Message:
        """Make the request and give the reply."""
        call = self._session.correlator.new_call(chunks)
        return await self._run(call, {} if resume is None else resumed(resume))

    async def begin(self, chunks: Chunks | None, deadline_ms: int | None, suspended: dict[str, Invocation]) -> Message:
        """Make the request in a task of its own, and give the reply, or what the server asks for first.

        In that case the invocation is in ``suspended`` until ``resume``, or until its deadline has passed.
        """
        self._suspended = suspended
        self._call = self._session.correlator.new_call(chunks)
        self._task = asyncio.create_task(self._run(self._call, {}))
        self._task.add_done_callback(_retrieve)
        if deadline_ms is not None:
            self._timer = asyncio.get_running_loop().call_later(deadline_ms / 1000, self._expire)
        return await self._turn()

    async def resume(self, chunks: Chunks | None, resume: Mapping[str, Any]) -> Message:
        """Answer the server, and wait on. If the kernel refused a request, the server is told, and the call ends."""
        self._call.chunks = chunks
        try:
            results = answers(resume)
        except KernelError as error:
            for request in self._server_requests:
                request.refuse(error)
            await self._stop()
            raise
        for request, result in zip(self._server_requests, results, strict=True):
            request.accept(result)
        return await self._turn()

    def cancel(self) -> None:
        """Cancel a suspended invocation."""
        self._task.cancel()
        for request in self._server_requests:
            request.refuse(Cancelled("the call was cancelled"))
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._suspended.pop(self._call.token, None)
        self.cancel()

    async def _stop(self) -> None:
        self.cancel()
        await asyncio.wait((self._task,))

    async def _turn(self) -> Message:
        waiting = asyncio.create_task(self._call.has_server_request.wait())
        try:
            await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            waiting.cancel()
        if self._task.done():
            if self._timer is not None:
                self._timer.cancel()
            return self._task.result()
        self._server_requests = requests = self._call.take_server_requests()
        self._suspended[self._call.token] = self
        return await pending(
            [(each.method, each.params) for each in requests], self._inputs, {"call": self._call.token}
        )

    async def _run(self, call: Call, more: Mapping[str, Any]) -> Message:
        with self._session.correlator.in_flight(call), _trace.within(self._meta):
            while True:
                result = await self._request(call, {**self._params, **more})
                if result.get("resultType") != INPUT_REQUIRED:
                    return Message(ok=True, result=self._result(call, result), size=call.size)
                required = InputRequired(result, self._inputs)
                if (reply := await required.pending()) is not None:
                    return reply
                if not required.known:
                    await asyncio.sleep(_RETRY_SECONDS)
                more = more_params(required.known, required.state)

    async def _request(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            try:
                return await self._session.request(call, self._method, params, self._meta, self._op)
            except KernelError as error:
                if error.details.get("mcp_code") != _codes.HEADER_MISMATCH:
                    raise
                self._session.correlator.note_change()  # the protocol says: list the tools, and send it again
                await self._session.list_tools(self._tools.granted)
                return await self._session.request(call, self._method, params, self._meta, self._op)
        except KernelError as error:
            if call.refused and "mcp_code" in error.details:
                raise refused(call.refused, **error.details) from error
            raise

    def _result(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        if self._method != "tools/call":
            return _without(result, "resultType")
        content = _without(result, "resultType", "isError")
        if result.get("isError"):
            if call.refused:
                raise refused(call.refused, **content)
            details = content if call.size <= _DETAILS_BYTES else {"$omitted": call.size}
            raise KernelError(_first_words(result) or f"{self._op} failed", code="tool_error", details=details)
        self._tools.check_result(self._op, result)
        return content


def _retrieve(task: asyncio.Task[Message]) -> None:
    """Retrieve the error of a task whose result may never be asked for: asyncio would log it."""
    if not task.cancelled():
        task.exception()


def _without(result: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in names}


def _first_words(result: Mapping[str, Any]) -> str:
    """Give the first words of a failed tool, in one line."""
    for block in result.get("content") or ():
        if block.get("type") == "text":
            return " ".join(block["text"][: 4 * _MESSAGE].split())[:_MESSAGE]
    return ""
