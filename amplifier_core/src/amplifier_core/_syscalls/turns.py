"""Turns of a module: it replies ``pending``, its system calls are made, and it is called again (section 2).

Owns the loop of turns and the limits on system calls in progress. `table` checks and makes each call. While its system
calls are made, a module holds no slot of ``limits.concurrency`` and no lock, so the modules that it calls may call it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._protocol.errors import BadRequest, Internal, add_clues, short
from amplifier_core._protocol.json import encode_checked
from amplifier_core._protocol.message import Message
from amplifier_core._sessions.policy import INVOKE, Question, authorize_again
from amplifier_core.hookspecs._chunks import TimedChunks

from .emit import Emitter
from .recording import record_reply, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from amplifier_core._modules.budget import Budget
    from amplifier_core._modules.deadline import Deadline
    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.ids import Span
    from amplifier_core._protocol.message import SystemCall
    from amplifier_core._sessions.namespace import PolicyHook
    from amplifier_core._sessions.state import SessionState
    from amplifier_core.hookspecs._chunks import Chunks


class InvokeParams(msgspec.Struct, omit_defaults=True, gc=False):
    """The parameters of ``invoke`` (section 2), in the order in which they are written: ``traceparent`` relies on it.

    ``deadline_ms`` is the time left when the request is sent.
    """

    op: str
    request_id: str
    span_id: str
    session_id: str
    deadline_ms: int
    args: msgspec.Raw
    resume: msgspec.Raw | None = None


class Invocation(msgspec.Struct, eq=False):
    """One invocation in progress. It is the caller of the system calls that its module makes.

    It goes on only while every policy hook of the session has been asked about it, one that was registered since too.
    """

    state: SessionState
    module: Module
    op: str
    args: msgspec.Raw
    span: Span
    deadline: Deadline
    granted: Sequence[str]  # its system calls need one of these, and one that the mount has when they are made
    chunks: Chunks | None  # the reader of the module's chunks
    asked: tuple[PolicyHook, ...] | None  # about this invocation; ``None``: its module is a policy hook itself
    caller: Mapping[str, str]  # names the module whose system call this is, for the question to policy
    starts: Callable[[], None] | None = None  # records that it is sent for the first time, if the embedder wants that

    def note_wait(self) -> None:
        """Record that the first request has to wait for its turn, if the run is recorded."""
        if self.starts is not None and self.state.runtime.settings.recording:
            data = {"op": self.op, "args": self.args}
            self.state.record("module:wait", self.span, module=self.module.path, data=data, observed=False)

    def is_outdated(self) -> bool:
        """Tell whether a policy hook was registered that has not been asked about this invocation."""
        return self.asked is not self.state.policy and self.asked is not None

    def names_seen_from(self, state: SessionState) -> dict[str, str]:
        """Name the module as the caller of a system call in a session, and its own session if that is another one."""
        told = {"caller": self.module.path}
        return told if state is self.state else told | {"caller_session_id": self.state.session_id}

    async def renew(self) -> None:
        """Ask the policy hooks that were registered since, if there are any. Raises ``Forbidden`` if one denies."""
        if not self.is_outdated():
            return
        self.deadline.pause_idle()
        question = Question(INVOKE, self.module, self.granted, self.op, self.args, **self.caller)
        self.asked = await authorize_again(self.state, question, self.span, self.asked or ())


def take_turn(invocation: Invocation, resume: msgspec.Raw | None = None) -> Coroutine[Any, Any, Message]:
    """Call the module for one turn. ``resume`` has the results of the system calls of the turn before."""
    deadline, module = invocation.deadline, invocation.module
    idle_ms = module.descriptor.limits.idle_ms
    chunks, sent = invocation.chunks, None
    if chunks is not None and invocation.state.runtime.settings.recording:
        chunks = recorded(invocation.state, module.path, invocation.span, chunks)
    if idle_ms is not None:
        deadline.idle_seconds = idle_ms / 1000
        chunks, sent = TimedChunks(chunks, deadline.restart_idle, deadline.pause_idle), deadline.restart_idle
    if invocation.starts is not None:
        sent = _starting(invocation, sent)
    params = _params(invocation, resume)
    if module.budget is not None:
        return _charged(module.budget, invocation, params, chunks, sent)
    return module.call("invoke", params, chunks, sent, invocation)


def _starting(invocation: Invocation, sent: Callable[[], None] | None) -> Callable[[], None]:
    """Give what to call when the first request of an invocation is sent."""

    def start() -> None:
        starts, invocation.starts = invocation.starts, None
        for each in (starts, sent):
            if each is not None:
                each()

    return start


async def _charged(
    budget: Budget, invocation: Invocation, params: bytes, chunks: Chunks | None, sent: Callable[[], None] | None
) -> Message:
    async with budget.charged(invocation.deadline):
        return await invocation.module.call("invoke", params, chunks, sent, invocation)


async def take_turns(invocation: Invocation, message: Message) -> Message:
    """Make the system calls of a ``pending`` reply and call the module again, until a reply is final."""
    recording = invocation.state.runtime.settings.recording
    while True:
        if recording and (message.pending or message.events or invocation.is_outdated()):
            record_reply(invocation.state, invocation.module, invocation.op, message, invocation.span)
        await invocation.renew()
        if message.events:
            await Emitter(invocation.state, invocation.module.path, invocation.span).emit_all(message.events)
            await invocation.renew()  # others had their turns
        if not message.pending or not message.is_reply():
            return message
        invocation.deadline.pause_idle()
        state, calls = message.pending.state, message.pending.syscalls
        message = _NOTHING  # the kernel keeps no more than it needs: each may be large
        try:
            await _hold(invocation)
            results = await _make_calls(invocation, calls)
        except asyncio.CancelledError as error:
            names = ", ".join(sorted({short(call.name) for call in calls[:_AT_ONCE]}))
            add_clues(error, phase="system calls", waited_for=f"{len(calls)} system calls ({names})")
            raise
        await _hold(invocation)
        await invocation.renew()
        resume = encode_checked({"state": state, "results": results})
        del state, calls, results
        turn = take_turn(invocation, msgspec.Raw(resume))
        del resume
        message = await turn


async def _hold(invocation: Invocation) -> None:
    """Wait, in a replay, until the run comes to this."""
    if (wait := invocation.state.runtime.ids.hold(invocation.span)) is not None:
        await wait


def _params(invocation: Invocation, resume: msgspec.Raw | None) -> bytes:
    span = invocation.span
    left = max(1, int(invocation.deadline.seconds_left() * 1000))
    op, args, session_id = invocation.op, invocation.args, invocation.state.session_id
    params = encode_checked(InvokeParams(op, span.request_id, span.span_id, session_id, left, args, resume))
    if resume is not None:
        _check_room(invocation, len(params))
    return params


def _check_room(invocation: Invocation, size: int) -> None:
    if size > (limit := invocation.module.message_bytes):
        raise BadRequest(f"the results of its system calls are more than {limit} bytes (limits.message_bytes)")


async def _make_calls(invocation: Invocation, calls: Sequence[SystemCall]) -> list[msgspec.Raw]:
    """Make system calls at once. Once their results are more than fits, no more are made: ``BadRequest``."""
    _check_count(invocation, len(calls))
    tree = invocation.span.tree
    tree.calls += len(calls)
    try:
        if len(calls) == 1:  # it needs no task of its own
            return [await invocation.state.runtime.system_call(invocation, calls[0])]
        async with asyncio.TaskGroup() as group:
            results = _Results(invocation)
            tasks = []
            for call in calls:
                tasks.append(group.create_task(results.add(call)))
                if len(tasks) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        return [task.result() for task in tasks]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        tree.calls -= len(calls)


class _Results:
    """The results of one ``pending``, counted as they are made."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._size = 0

    async def add(self, call: SystemCall) -> msgspec.Raw:
        """Make one call."""
        _check_room(self._invocation, self._size)
        result = await self._invocation.state.runtime.system_call(self._invocation, call)
        self._size += len(result)
        _check_room(self._invocation, self._size)
        return result


def _check_count(invocation: Invocation, count: int) -> None:
    """Refuse a list that is empty or too long, and too many calls in progress in one request."""
    path = invocation.module.path
    if not count:
        raise Internal(f"{path} broke its contract: it replied pending without a system call")
    if count > _CALLS_MAX:
        raise Internal(f"{path} broke its contract: {count} system calls at once; the limit is {_CALLS_MAX}")
    if invocation.span.tree.calls + count > _TREE_MAX:
        raise BadRequest(f"{path}: with its system calls more than {_TREE_MAX} would be in progress in one request")


_AT_ONCE = 8  # begun in one turn of the loop
_NOTHING = Message()
_CALLS_MAX = 1000  # of one `pending`: more would keep the event loop from other tasks
_TREE_MAX = 4000  # in progress in one request: a cycle that calls itself twice doubles them at each of 32 levels
