"""One invocation of one op: its request, what the server asks meanwhile, and its result in the kernel's words.

Owns the turns. Between two of them the kernel answers what the server asked, and nobody waits here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core import Cancelled, KernelError
from amplifier_core.hookspecs import Message

from . import _codes
from ._asks import InputRequired, answers, pending, refused, resumed
from ._tools import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core.hookspecs import Chunks

    from ._fields import Inputs
    from ._life import Life
    from ._tools import Tools
    from ._traffic import Call, Question

_INPUT_REQUIRED = "input_required"
_AGAIN_SECONDS = 0.05  # before a request is sent again for which the server wanted nothing but that
_MESSAGE = 200  # characters of a tool's own words


class Talk:
    """An invocation. Where the server may ask while it works, its request runs in a task of its own."""

    def __init__(
        self,
        life: Life,
        tools: Tools,
        inputs: Inputs,
        op: str,
        args: Mapping[str, Any],
        meta: Mapping[str, str],
    ) -> None:
        self._life = life
        self._tools = tools
        self._inputs = inputs
        self._op = op
        self._meta = meta
        self._method = op if op in METHODS else "tools/call"
        self._params = dict(args) if op in METHODS else {"name": op, "arguments": dict(args)}
        self._call: Call | None = None
        self._task: asyncio.Task[Message] | None = None
        self._asked: list[Question] = []
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, chunks: Chunks | None, resume: Mapping[str, Any] | None = None) -> Message:
        """Make the request and give the reply."""
        more = {} if resume is None else resumed(resume)
        self._call = call = self._life.begin(chunks)
        try:
            while True:
                result = await self._request(call, {**self._params, **more})
                if result.get("resultType") != _INPUT_REQUIRED:
                    return Message(ok=True, result=self._result(call, result), size=call.size)
                asked = InputRequired(result, self._inputs)
                if (reply := asked.pending()) is not None:
                    return reply
                if not asked.known:
                    await asyncio.sleep(_AGAIN_SECONDS)
                more = asked.again()
        finally:
            self._life.traffic.end(call)

    async def begin(self, chunks: Chunks | None, deadline_ms: int | None, talks: dict[str, Talk]) -> Message:
        """Make the request in a task of its own; give the reply, or what the server asks first.

        Then it waits in ``talks``. If nobody comes back, it is given up when its deadline has passed.
        """
        self._task = task = asyncio.create_task(self.run(chunks))
        task.add_done_callback(_heard)
        await asyncio.sleep(0)  # now it has its call
        if deadline_ms is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(deadline_ms / 1000, self._give_up, talks)
        return await self._turn(task, talks)

    async def go_on(self, chunks: Chunks | None, resume: Mapping[str, Any], talks: dict[str, Talk]) -> Message:
        """Hand the answers to the server, and wait on. A refusal is told to it, and is the end of the call."""
        task, call = self._running()
        call.chunks = chunks
        try:
            found = answers(resume)
        except KernelError as error:
            for question in self._asked:
                question.refuse(error)
            await self._stop(task)
            raise
        for question, answer in zip(self._asked, found, strict=True):
            question.accept(answer)
        return await self._turn(task, talks)

    def drop(self) -> None:
        """Give up what waits for an answer."""
        task, _ = self._running()
        task.cancel()
        for question in self._asked:
            question.refuse(Cancelled("the call was given up"))
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self, talks: dict[str, Talk]) -> None:
        _, call = self._running()
        talks.pop(call.token, None)
        self.drop()

    def _running(self) -> tuple[asyncio.Task[Message], Call]:
        assert self._task is not None  # noqa: S101 - for the type checker
        assert self._call is not None  # noqa: S101 - for the type checker
        return self._task, self._call

    async def _turn(self, task: asyncio.Task[Message], talks: dict[str, Talk]) -> Message:
        _, call = self._running()
        asked = asyncio.create_task(call.asked.wait())
        try:
            await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._stop(task)
            raise
        finally:
            asked.cancel()
        if task.done():
            if self._timer is not None:
                self._timer.cancel()
            return task.result()
        self._asked = list(call.questions)
        call.questions.clear()
        call.asked.clear()
        talks[call.token] = self
        return pending([(each.method, each.params) for each in self._asked], self._inputs, {"talk": call.token})

    async def _stop(self, task: asyncio.Task[Message]) -> None:
        self.drop()
        await asyncio.wait((task,))

    async def _request(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            try:
                return await self._life.request(call, self._method, params, self._meta, self._op)
            except KernelError as error:
                if error.details.get("mcp_code") != _codes.HEADER_MISMATCH:
                    raise
                self._life.traffic.tools_changed = True  # what the protocol asks for: list, and send it again
                await self._life.list_tools(self._tools.granted)
                return await self._life.request(call, self._method, params, self._meta, self._op)
        except KernelError as error:
            if call.refused and "mcp_code" in error.details:
                raise refused(call.refused, **error.details) from error
            raise

    def _result(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        if self._method != "tools/call":
            return _without(result, "resultType")
        if result.get("isError"):
            told = _without(result, "resultType", "isError")
            if call.refused:
                raise refused(call.refused, **told)
            raise KernelError(_words_of(result) or f"{self._op} failed", code="tool_error", details=told)
        self._tools.check_result(self._op, result)
        return _without(result, "resultType", "isError")


def _heard(task: asyncio.Task[Message]) -> None:
    """Take note of how a request ended that nobody may come back for."""
    if not task.cancelled():
        task.exception()


def _without(result: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in names}


def _words_of(result: Mapping[str, Any]) -> str:
    """Give the first words of a tool that failed, in one line."""
    for block in result.get("content") or ():
        if block.get("type") == "text":
            return " ".join(block["text"][: 4 * _MESSAGE].split())[:_MESSAGE]
    return ""
