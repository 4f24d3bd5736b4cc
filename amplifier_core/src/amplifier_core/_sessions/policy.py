"""Policy: asks a session's hooks about one action and makes the decision an event before anything runs (section 6).

Owns the question, its deadline and the event. ``_protocol.gate`` decides what follows from the answers; the caller acts
on the decision.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._protocol.errors import Forbidden, Internal, KernelError, Unreachable, one_line
from amplifier_core._protocol.gate import Answer, Outcome, decide, decide_again, narrowed_below, not_whole, read_answer
from amplifier_core._protocol.ids import ms_since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import Raw

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.gate import Verdict
    from amplifier_core._protocol.ids import Span

    from .namespace import PolicyHook
    from .state import SessionState

MOUNT, INVOKE = "mount", "invoke"


class Question(msgspec.Struct, frozen=True):
    """One question to policy, about a ``mount``, an ``invoke`` or another system call. ``wanted`` is canonical."""

    action: str
    module: Module
    wanted: Sequence[str]
    op: str | None = None
    args: Raw | None = None
    caller: str | None = None  # the module whose system call this is
    caller_session_id: str | None = None  # its session, if that is another one


async def authorize(state: SessionState, question: Question, span: Span) -> Outcome:
    """Ask the policy hooks, lowest priority first, until one denies. Raises ``Forbidden`` if the decision is no allow.

    The decision is in the log before this function returns or raises. When it returns, all hooks were asked that the
    session has then, those included that were registered meanwhile.
    """
    asking = _Asking(state, question, span)
    decision = await asking.decide()
    if decision.allowed and question.action == INVOKE:
        lost = narrowed_below(question.module.granted, decision.granted)
        if lost is not None:
            reason = f"{lost} was granted at the mount and cannot be taken away for one invocation"
            decision = Outcome(allowed=False, granted=(), scope="call", reason=reason)
    if decision.allowed and question.action not in (INVOKE, MOUNT):
        lost = not_whole(question.wanted, decision.granted)
        if lost is not None:
            decision = Outcome(allowed=False, reason=f"{lost} was allowed in part, and is made whole or not at all")
    asking.conclude(decision)
    return decision


async def authorize_again(
    state: SessionState, question: Question, span: Span, asked: tuple[PolicyHook, ...]
) -> tuple[PolicyHook, ...]:
    """Ask the hooks that were registered after ``asked``, about an action that has begun and goes on only then.

    They can deny it, which raises ``Forbidden``; their allow adds nothing, and one of less denies. Returns the hooks
    that now have been asked.
    """
    asking = _Asking(state, question, span)
    asking.conclude(decide_again(question.wanted, await asking.ask_newer(asked)))
    return state.policy


class _Asking:
    """One question on its way to the hooks, from its beginning to the decision, which is an event."""

    def __init__(self, state: SessionState, question: Question, span: Span) -> None:
        self._state, self._question, self._span = state, question, span
        self._clock = state.runtime.clock
        self._began = self._clock.monotonic()
        self._data = _describe(question)
        self._answers: list[Answer] = []
        self._untold: Answer | None = None  # of a callable, which no event tells of yet

    async def decide(self) -> Outcome:
        """Ask all hooks. At a mount, find out what of their answer cannot be enforced; hooks may come meanwhile."""
        question, module = self._question, self._question.module
        asked: tuple[PolicyHook, ...] = ()
        while True:
            answers, asked = await self.ask_newer(asked), self._state.policy
            decision = decide(question.wanted, answers)
            if question.action != MOUNT:
                return decision
            module.unenforced = await module.find_unenforced((*question.wanted, *decision.granted))
            if self._state.policy is asked or not decision.allowed:
                return decision

    async def ask_newer(self, asked: tuple[PolicyHook, ...]) -> list[Answer]:
        """Ask the hooks of the session but those that were ``asked`` already, until one denies or there is no other."""
        state = self._state
        if state.runtime.settings.recording and state.policy is not asked:
            path = self._question.module.path
            state.record("policy:request", self._span, module=path, data=self._data, observed=False)
        while (policy := state.policy) is not asked:
            known = set(map(id, asked))
            asked = policy
            for hook in policy:
                if id(hook) not in known and await self._ask(hook) == "deny":
                    return self._answers
        return self._answers

    async def _ask(self, hook: PolicyHook) -> Verdict:
        self._tell_answer()
        began = self._clock.monotonic()
        try:
            answer = await _ask(self._state, hook, self._question, self._data, self._span)
        except asyncio.CancelledError:  # the caller went away, or its deadline passed
            reason = "had not answered when the wait for it ended"
            self._take(Answer(hook.name, "deny", reason=reason), began)
            self._record(Outcome(allowed=False, reason=f"policy hook {hook.name} {reason}"))
            raise
        self._take(answer, began)
        self._untold = answer if hook.module is None else None
        return answer.decision

    def _tell_answer(self) -> None:
        """Record in a recording what a callable has answered, before another hook is asked, which may take long."""
        answer, self._untold = self._untold, None
        if answer is not None and self._state.runtime.settings.recording:
            told = _shown(answer, whole=True)
            del told["duration_ms"]
            data = self._described() | {"answer": told}
            self._state.record(
                "policy:answer", self._span, module=self._question.module.path, data=data, observed=False
            )

    def _described(self) -> dict[str, Any]:
        shown = {key: value for key, value in self._data.items() if key != "args"}
        shown["wanted"] = shown.pop("capabilities")
        return shown

    def _take(self, answer: Answer, began: float) -> None:
        self._answers.append(msgspec.structs.replace(answer, duration_ms=ms_since(self._clock, began)))

    def conclude(self, decision: Outcome) -> None:
        """Record the decision, and raise unless it allows the action and there still is a session for it."""
        self._record(decision)
        question, policy = self._question, self._state.policy
        if not decision.allowed:
            action = f"{question.action} {question.module.path}{f' {question.op}' if question.op else ''}"
            why = decision.reason if policy else f"{decision.reason}: none is registered on policy:request"
            raise Forbidden(f"{action}: {why}", details={"capabilities": list(question.wanted)})
        self._state.check_open()  # a hook may have outlived the session

    def _record(self, decision: Outcome) -> None:
        question = self._question
        shown = self._described()
        shown["decision"] = "allow" if decision.allowed else "deny"
        shown["capabilities"] = list(decision.granted)
        shown["unenforced"] = shown["unenforced"] + [
            word for word in decision.granted if word in question.module.unenforced and word not in question.wanted
        ]
        shown["scope"] = decision.scope
        shown["reason"] = decision.reason
        shown["hooks"] = [_shown(answer, whole=self._state.runtime.settings.recording) for answer in self._answers]
        status = "ok" if decision.allowed else "error"
        path = question.module.path
        self._state.record("policy:decision", self._span, module=path, status=status, began=self._began, data=shown)


def _shown(answer: Answer, *, whole: bool) -> dict[str, Any]:
    """Tell what a hook answered; ``whole`` as it is needed to answer the same again."""
    told: dict[str, Any] = {
        "hook": answer.hook,
        "decision": answer.decision,
        "reason": answer.reason,
        "duration_ms": answer.duration_ms,
    }
    if whole and answer.decision != "deny":
        told["scope"] = answer.scope
        if answer.capabilities is not None:
            told["capabilities"] = list(answer.capabilities)
    return told


def _describe(question: Question) -> dict[str, Any]:
    """Build the ``data`` of the question, as section 6 lists it."""
    module = question.module
    descriptor = module.descriptor
    unenforced = [*module.unconfined, *(word for word in question.wanted if word in module.unenforced)]
    data: dict[str, Any] = {
        "action": question.action,
        "path": module.path,
        "name": descriptor.name,
        "kind": descriptor.kind,
        "version": descriptor.version,
        "op": question.op,
        "args": question.args,
        "capabilities": list(question.wanted),
        "unenforced": unenforced,
        "trusted": module.trusted or None,
        "caller": question.caller,
        "caller_session_id": question.caller_session_id,
    }
    return {key: value for key, value in data.items() if value is not None}


async def _ask(state: SessionState, hook: PolicyHook, question: Question, data: dict[str, Any], span: Span) -> Answer:
    runtime = state.runtime
    request = runtime.bus.request("policy:request", state.session_id, span, data)
    try:
        with runtime.deadlines.within(runtime.settings.policy_timeout, f"policy hook {hook.name}") as asking:
            asking.phase = "policy"
            runtime.ids.take_end(span, asking.fail)
            asked = _Asked(hook)
            try:
                if hook.unmounted:
                    raise Unreachable(f"{hook.name} is no longer mounted")
                value = await hook.ask(state, request, span)
            finally:
                asked.close()
            if hook.module is not None and (wait := runtime.ids.hold(span, hook.name)) is not None:
                await wait
            await runtime.deadlines.catch_up()
        return _read(value, hook, question)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        failure: KernelError = Internal(f"policy hook {hook.name} cancelled itself")
    except _HookRecursionError as error:
        if _innermost() is not None:
            raise
        failure = Internal(error.message)
    except Exception as error:  # noqa: BLE001 - foreign code: each of its failures denies
        failure = KernelError.from_exception(error, f"policy hook {hook.name}")
    state.record("hook:error", span, status="error", data={"hook": hook.name, "event": "policy:request"}, error=failure)
    text = f"policy hook {hook.name} failed, which denies"
    runtime.bus.warn(f"policy {hook.name}", f"{text}: {failure.message}", text)
    return Answer(hook.name, "deny", reason=f"the hook failed: {failure.message}")


class _HookRecursionError(Internal, code="internal"):
    """A hook is asked about its own calls, again and again. It is raised through all of them, to the first question."""


class _Asked:
    """A question to a callable that is not answered yet, in the context of its hook, and in the tasks that it starts.

    Making one bounds how deep hooks may be asked about the calls of hooks: Python's own bound comes late, in kilobytes.
    A task may outlive the question that started it, so only questions count that are open.
    """

    __slots__ = ("_token", "open", "outer")

    def __init__(self, hook: PolicyHook) -> None:
        self.open = hook.module is None  # the calls of modules have a bound of their own
        self.outer = outer = _innermost()
        depth = 0
        while outer is not None:
            depth += 1
            outer.outer = _first_open(outer.outer)
            outer = outer.outer
        if self.open and depth >= _DEPTH_MAX:
            raise _HookRecursionError(
                f"policy hook {hook.name} invokes through a session whose calls it is asked about, {_DEPTH_MAX} deep; "
                "let it answer for its own calls without another one"
            )
        self._token = _asked.set(self)

    def close(self) -> None:
        """Note that the question is answered, or given up."""
        self.open = False
        _asked.reset(self._token)


def _innermost() -> _Asked | None:
    """Give the open question in whose context this runs."""
    return _first_open(_asked.get())


def _first_open(asked: _Asked | None) -> _Asked | None:
    while asked is not None and not asked.open:
        asked = asked.outer
    return asked


_DEPTH_MAX = 16  # questions inside each other
_asked: ContextVar[_Asked | None] = ContextVar("amplifier_core policy questions", default=None)


def _read(value: object, hook: PolicyHook, question: Question) -> Answer:
    base = None if hook.module else question.module.descriptor.base
    try:
        return read_answer(value, hook.name, base, may_grant=hook.may_grant)
    except Exception as error:  # an answer may be any object
        reason = error if isinstance(error, ValueError) else one_line(error)
        raise Internal(f"policy hook {hook.name} gave no valid answer: {reason}") from error
