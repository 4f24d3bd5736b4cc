"""The embedder's hooks in a replay: they answer what the hooks of the run answered, when the log does.

Owns the questions that wait. The embedder's code does not run until the run goes on; what it did is in the log.
"""

from __future__ import annotations

import asyncio
import itertools
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import msgspec

from ._spans import doer

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping

    from amplifier_core import Event, KernelError

    from ._live import Hook
    from ._log import Entry

_ANSWER = ("decision", "capabilities", "scope", "reason")
FAILED = "the hook failed: "
"""How the reason of a hook begins that failed."""

_UNANSWERED = "had not answered when the wait for it ended"

_SAME = ("action", "path", "op", "caller", "caller_session_id")
"""Members of a question that the decision on it has as well, beside the capabilities that are wanted."""


class Question(msgspec.Struct, eq=False):
    """One question to a hook that is not answered yet. In its context, code runs in the span in question."""

    hook: str
    data: Mapping[str, Any]
    answer: asyncio.Future[Any]
    context: Context
    task: weakref.ref[asyncio.Task[Any]] | None
    """The one that waits."""

    def is_about(self, decided: Mapping[str, Any]) -> bool:
        """Tell whether a decision is that on this question."""
        told = self.data
        same = all(told.get(name) == decided.get(name) for name in _SAME)
        return same and told.get("capabilities") == decided.get("wanted")


class Hooks:
    """The embedder's hooks of one replay."""

    def __init__(self) -> None:
        self.questions: dict[str, list[Question]] = {}
        """By the span that they are about: of several system calls of one turn at the same time."""
        self.raised: dict[str, KernelError] = {}
        """What calls of hooks have raised, by the span that the hook is asked about."""
        self.names: set[str] = set()
        """The names of those that were registered."""
        self._live: Mapping[str, Hook] | None = None

    def go_on(self, live: Mapping[str, Hook]) -> None:
        """Ask the embedder's own hooks from now on, by their names. What is asked already is asked again."""
        self._live = live
        for question in itertools.chain.from_iterable(self.questions.values()):
            if not question.answer.done():
                question.answer.set_result(_AGAIN)

    def policy(self, name: str) -> Hook:
        """Make a policy hook of that name."""

        async def hook(event: Event) -> Any:
            answer = _AGAIN if self._live is not None else await self._recorded(name, event)
            return await self._ask(name, event) if answer is _AGAIN else answer

        return self._named(name, hook)

    def observer(self, name: str) -> Hook:
        """Make an observer of that name, which does nothing until the run goes on."""

        async def hook(event: Event) -> None:
            live = (self._live or {}).get(name)
            if live is not None:
                await live(event)

        return self._named(name, hook)

    def _named(self, name: str, hook: Hook) -> Hook:
        hook.__qualname__ = name
        self.names.add(name)
        return hook

    async def _recorded(self, name: str, event: Event) -> Any:
        span_id = event.span_id or ""
        answer = asyncio.get_running_loop().create_future()
        question = Question(name, event.data, answer, copy_context(), doer.get())
        waiting = self.questions.setdefault(span_id, [])
        waiting.append(question)
        try:
            return await question.answer
        finally:
            waiting.remove(question)
            if not waiting:
                del self.questions[span_id]

    async def _ask(self, name: str, event: Event) -> Any:
        live = (self._live or {}).get(name)
        if live is None:
            return {"decision": "deny", "reason": f"no hook {name} was given when the run went on"}
        return await live(event)

    def answer(self, told: Entry) -> bool:
        """Let a hook answer, as an event tells: the answer, or the decision, which comes with the last answer.

        False: nobody waits for it.
        """
        data = told.read()
        answers = [data["answer"]] if told.event == "policy:answer" else data["hooks"][-1:]
        return any(self._give(answer, told.span_id, data) for answer in answers)

    def _give(self, answer: Mapping[str, Any], span_id: str | None, about: Mapping[str, Any]) -> bool:
        question = self._first(span_id, lambda each: each.hook == answer["hook"] and each.is_about(about))
        if question is not None:
            question.answer.set_result({name: answer[name] for name in _ANSWER if answer.get(name) is not None})
        return question is not None

    def cancel(self, decided: Entry) -> bool:
        """Cancel the task that waits for an answer which had not come at the decision. False: none does."""
        told = decided.read()
        question = self._first(decided.span_id, lambda each: each.is_about(told))
        task = question.task() if question is not None and question.task is not None else None
        return task is not None and task.cancel()

    def is_asked(self, span_id: str | None) -> bool:
        """Tell whether a hook is asked about a span."""
        return self._first(span_id, lambda _: True) is not None

    def fail(self, name: str, error: KernelError, span_id: str | None, decided: Entry | None) -> bool:
        """Let a hook fail, on the question of that decision if it is known. False: none of that name is asked."""
        data = decided.read() if decided is not None else None
        question = self._first(span_id, lambda each: each.hook == name and (data is None or each.is_about(data)))
        if question is not None:
            question.answer.set_exception(error)
        return question is not None

    def raise_through(self, span_id: str) -> bool:
        """Let the hook that is asked about a span raise what a call of its own has raised. False: none has."""
        question, error = self._first(span_id, lambda _: True), self.raised.pop(span_id, None)
        if question is None or error is None:
            return False
        question.answer.set_exception(error)
        return True

    def _first(self, span_id: str | None, wanted: Callable[[Question], bool]) -> Question | None:
        waiting = self.questions.get(span_id or "", ())
        return next((each for each in waiting if not each.answer.done() and wanted(each)), None)


def was_given_up(decided: Entry) -> bool:
    """Tell whether the last hook that was asked had not answered when its caller gave up."""
    return any(answer.get("reason") == _UNANSWERED for answer in decided.read()["hooks"][-1:])


def was_given_up_at(entry: Entry, hook: str) -> bool:
    """Tell a decision that says that this hook, asked last, had not answered."""
    return entry.event == "policy:decision" and was_given_up(entry) and entry.read()["hooks"][-1]["hook"] == hook


_AGAIN = object()
