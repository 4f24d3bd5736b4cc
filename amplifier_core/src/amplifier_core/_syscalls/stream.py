"""A stream: one invocation, its chunks as they come and its result at the end.

Owns the task of the invocation, and cancels it when the reader leaves. `Chunks` owns the buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, Self

from amplifier_core._protocol.errors import BadRequest, Cancelled
from amplifier_core.hookspecs._chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType


class Stream:
    """An async iterator over the chunks of one invocation (protocol, section 2), for one reader.

    The invocation starts with the first use. ``async for chunk in stream`` gives each chunk, any JSON value, and at the
    end raises the error of the invocation, if there is one. ``await stream.result()`` gives the final result, with or
    without chunks read before. The invocation is cancelled at the end of ``async with stream``, by ``aclose()``, when a
    task that waits for a chunk is cancelled, and when the stream is garbage.
    """

    def __init__(self, invoke: Callable[[Chunks], Coroutine[Any, Any, Any]], check_loop: Callable[[], None]) -> None:
        self._check_loop = check_loop
        self._invoke: Callable[[Chunks], Coroutine[Any, Any, Any]] | None = invoke
        self._chunks = Chunks()
        self._task: asyncio.Task[Any] | None = None

    @property
    def dropped(self) -> int:
        """How many chunks were dropped because the reader was too slow. The result is complete all the same."""
        return self._chunks.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._check_loop()
        task = self._task or self._started()
        try:
            return self._chunks.take() if self._chunks.ready else await self._chunks.get()
        except StopAsyncIteration:
            self._result_of(task)  # the task is done: it ends its chunks in its last step
            raise
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def result(self) -> Any:
        """Give the final result, or raise the error of the invocation. Chunks that were not read are discarded."""
        self._check_loop()
        task = self._started()
        self._chunks.discard()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return self._result_of(task)

    async def aclose(self) -> None:
        """Cancel the invocation, if it still runs, and wait for its end. Idempotent."""
        self._check_loop()
        self._invoke = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def __aenter__(self) -> Self:
        self._check_loop()
        _ = self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._task is not None and not self._task.done():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)  # garbage is collected in any thread

    def __repr__(self) -> str:
        phase = "not started" if self._task is None else "ended" if self._task.done() else "running"
        return f"<Stream: {phase}>"

    def _result_of(self, task: asyncio.Task[Any]) -> Any:
        """Give the result, or raise its error. `aclose` cancels the task, not the reader: that is ``Cancelled``."""
        if task.cancelled():
            raise Cancelled("the stream was closed before its end")
        return task.result()

    def _started(self) -> asyncio.Task[Any]:
        if self._task is None:
            if self._invoke is None:
                raise BadRequest("the stream is closed")
            self._task = asyncio.get_running_loop().create_task(_run(self._invoke, self._chunks), name="stream")
            self._task.add_done_callback(functools.partial(_end, self._chunks))
            self._invoke = None
        return self._task


async def _run(invoke: Callable[[Chunks], Awaitable[Any]], chunks: Chunks) -> Any:
    """Run the invocation. The task has no reference to its stream, so that an unused stream becomes garbage."""
    try:
        return await invoke(chunks)
    finally:
        chunks.end()


def _end(chunks: Chunks, task: asyncio.Task[Any]) -> None:
    """End the chunks of a task that was cancelled before its first step, and mark its exception as retrieved."""
    chunks.end()
    if not task.cancelled():
        task.exception()
