"""The connection to one object in this process.

Owns its requests: how many run at once, that each ends with its caller, whatever the object does, and the reading of
its replies, which are held to the bounds of any other module's.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from amplifier_core import BadRequest, Cancelled, Forbidden, Internal, Unreachable
from amplifier_core.hookspecs import LARGE, Connection, NotJson, add_clues, causes, decode_message, decode_message_large

from ._answering import AnsweringObject
from ._context import Sender
from ._plain import PlainObject
from ._thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Message, Notify

_GRACE = 1.0  # seconds that cancelled tasks have at the end
_LATE = "events: they came with the reply to a request that had been cancelled"


class _Served(Protocol):
    """What answers for the object. ``places``: how many requests at once at most, if no limit says so."""

    places: int | None

    def begin(self, method: str, params: bytes, sender: Sender) -> asyncio.Future[bytes]:
        """Begin to answer one request."""

    async def close(self) -> None:
        """Release everything."""


class InprocConnection(Connection):
    """One object as a module. It runs on this host and cannot be confined, so that it needs the embedder's trust."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, find: Callable[[], object], notify: Notify) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self._descriptor = descriptor
        self._notify = notify
        self._limit = descriptor.message_bytes
        self._find = find
        self._served: _Served | None = None
        self._places: asyncio.Semaphore | None = None
        self._requests: dict[asyncio.Future[bytes], asyncio.Future[bytes]] = {}  # the work, and who waits for it

    def launch(self) -> NoReturn:
        """Refuse: there is no process that an isolation could confine."""
        told = "runs in the process of the kernel, where no isolation confines it"
        remedy = "mount(..., trusted=True) runs it with all rights of this program"
        raise Forbidden(f"{self._descriptor.name} {told}; {remedy}")

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - trusted
        """Find the object, in a thread: an import may take long."""
        target: Any = await in_thread(self._find)
        if callable(getattr(target, "inproc", None)):
            served: _Served = _answering(target)
        elif all(callable(getattr(target, name, None)) for name in ("describe", "invoke")):
            served = PlainObject(target)
        else:
            expected = "expected an object with describe() and invoke(), or with inproc()"
            raise BadRequest(f"{self._descriptor.source}: {expected}, got {type(target).__name__}")
        places = self._descriptor.limits.concurrency or served.places
        self._places = asyncio.Semaphore(places) if places else None
        self._served = served

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Have the object answer one request, and read its reply."""
        if self._places is not None:
            await self._take_place(self._places, chunks)
        if self._served is None:
            raise Unreachable("the module was unmounted")
        sender = Sender(chunks, self._limit)
        work = self._served.begin(method, params, sender)
        reply = self._requests[work] = asyncio.get_running_loop().create_future()
        work.add_done_callback(self._end)
        try:
            return await self._read(await reply)
        except asyncio.CancelledError as error:
            sender.give_up()
            if others := self._given_up - (work in self._requests):
                add_clues(error, given_up=others)
            if isinstance(work, asyncio.Task):
                work.cancel()
            elif not work.done():
                add_clues(error, runs_on="in its thread: nothing can interrupt a plain function there")
            raise

    async def close(self) -> None:
        """Cancel what runs, and wait a second for it. A plain function runs on in its thread."""
        served, self._served = self._served, None
        for work, reply in self._requests.items():
            if isinstance(work, asyncio.Task):
                work.cancel()
            if not reply.done():
                reply.set_exception(Unreachable("the module was unmounted"))
        if tasks := [work for work in self._requests if isinstance(work, asyncio.Task)]:
            await asyncio.wait(tasks, timeout=_GRACE)
        if served is not None:
            with _contained("close"):
                await served.close()

    @property
    def _given_up(self) -> int:
        """How many requests run on whose callers have given up."""
        return sum(reply.done() for reply in self._requests.values())

    async def _take_place(self, places: asyncio.Semaphore, chunks: Chunks | None) -> None:
        """Wait while as many requests run as may at once. Those that were given up count for as long as they run."""
        if not places.locked():
            await places.acquire()
            return
        if chunks is not None:
            chunks.hold()
        try:
            await places.acquire()
        except asyncio.CancelledError as error:
            count = len(self._requests)
            told = f"{count} ran, {self._given_up} of them for callers that had given up"
            add_clues(error, phase="turn", waited_for=f"its turn: {told}")
            raise
        if chunks is not None:
            chunks.sent()

    def _end(self, work: asyncio.Future[bytes]) -> None:
        """Pass on what came of a request, if somebody waits for it."""
        reply = self._requests.pop(work)
        if self._places is not None:
            self._places.release()
        error = Internal("it cancelled itself") if work.cancelled() else work.exception()
        if reply.done():
            if error is None and reply.cancelled():
                self._tell_late(work.result())
        elif error is None:
            reply.set_result(work.result())
        else:
            reply.set_exception(error if isinstance(error, (Exception, *_PASSED)) else _failure(error, "it"))

    def _tell_late(self, text: bytes) -> None:
        """Report the events of a reply that nobody waits for any more. Whether a large one has any, nobody looks."""
        with contextlib.suppress(NotJson, TypeError):
            message = decode_message(text) if len(text) <= LARGE else None
            if message is not None and message.events:
                dropped = {"count": len(message.events), "first": message.events[0]}
                self._notify("events:dropped", dropped, Cancelled(_LATE))

    async def _read(self, text: bytes) -> Message:
        if not isinstance(text, bytes | bytearray | memoryview):
            raise Internal(f"reply: expected bytes of JSON, got {type(text).__name__}")
        if len(text) > self._limit:
            raise Internal(f"reply: expected at most {self._limit} bytes (limits.message_bytes), got {len(text)}")
        try:
            if len(text) > LARGE:
                return await decode_message_large(text, self._limit)
            return decode_message(text, self._limit)
        except NotJson as error:
            raise Internal(f"reply: {error}") from None


def _answering(target: Any) -> AnsweringObject:
    with _contained("inproc"):
        return AnsweringObject(target.inproc())


@contextlib.contextmanager
def _contained(what: str) -> Iterator[None]:
    """Make an error of what foreign code raises that would end the kernel's loop, or a ``try`` of the embedder's."""
    try:
        yield
    except (Exception, *_PASSED):
        raise
    except BaseException as error:
        raise _failure(error, what) from error


def _failure(error: BaseException, what: str) -> Internal:
    return Internal(f"{what} raised {causes(error)[0]}", details={"causes": causes(error)})


_PASSED = (asyncio.CancelledError, KeyboardInterrupt)  # what these mean, they mean here
