"""A stream: one invocation, whose chunks are read as they come and whose result is there at the end.

Owns the task that the invocation runs in, and its end when the reader leaves.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Self

from amplifier_core._protocol.errors import BadRequest, Cancelled
from amplifier_core.hookspecs._chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType


class Stream:
    """An async iterator over an invocation's chunks, for one reader. It starts with the first use.

    ``async for chunk in stream`` gives each chunk and raises what the invocation raised; ``await stream.result()``
    gives the final result, whether chunks were read or not. Leaving early cancels the invocation: at the end of
    ``async with stream``, at ``aclose()``, when a task that waits for a chunk is cancelled, or when the stream is
    garbage.
    """

    def __init__(self, invoke: Callable[[Chunks], Coroutine[Any, Any, Any]]) -> None:
        self._invoke: Callable[[Chunks], Coroutine[Any, Any, Any]] | None = invoke
        self._chunks = Chunks()
        self._task: asyncio.Task[Any] | None = None

    @property
    def dropped(self) -> int:
        """How many chunks were dropped because they were not read in time."""
        return self._chunks.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        task = self._task or self._started()
        try:
            return self._chunks.take() if self._chunks.ready else await self._chunks.get()
        except StopAsyncIteration:
            self._outcome(task)  # it is over: it ends in the step that says that no chunk follows, or before
            raise
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def result(self) -> Any:
        """Give the final result, or raise what the invocation raised. Chunks that were not read are let go of."""
        task = self._started()
        self._chunks.discard()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return self._outcome(task)

    async def aclose(self) -> None:
        """Cancel the invocation, if it is not over, and wait for its end. Idempotent."""
        self._invoke = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def __aenter__(self) -> Self:
        _ = self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._task is not None and not self._task.done() and not self._task.get_loop().is_closed():
            self._task.cancel()

    def _outcome(self, task: asyncio.Task[Any]) -> Any:
        """Give the result or raise; cancelled by `aclose` is not the reader's own cancellation."""
        if task.cancelled():
            raise Cancelled("the stream was closed before its end")
        return task.result()

    def _started(self) -> asyncio.Task[Any]:
        if self._task is None:
            if self._invoke is None:
                raise BadRequest("the stream is closed")
            self._task = asyncio.get_running_loop().create_task(_run(self._invoke, self._chunks), name="stream")
            self._task.add_done_callback(functools.partial(_over, self._chunks))
            self._invoke = None
        return self._task


async def _run(invoke: Callable[[Chunks], Awaitable[Any]], chunks: Chunks) -> Any:
    """Run the invocation without a reference to its stream, which may become garbage meanwhile."""
    try:
        return await invoke(chunks)
    finally:
        chunks.end()


def _over(chunks: Chunks, task: asyncio.Task[Any]) -> None:
    """Note the end of a task that may never have begun. Of one that was left, the error matters to nobody."""
    chunks.end()
    if not task.cancelled():
        task.exception()
