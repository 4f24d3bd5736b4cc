"""The probes: what a module is asked, in which order, and which rule an odd answer breaks.

Owns the order, and the questions that run no operation. Those that do are for `_runs`, how they are sent is the wire's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ._course import Course
from ._judge import Judge
from ._runs import Runs
from ._wires import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.testing import Example

    from ._report import Report
    from ._wires import Lane, Wire

__all__ = ["Probes"]

_LARGE = 128 * 1024
_SEPARATORS = "before \u2028 \u2029 \u0085 after"


class Probes:
    """Asks one module. ``seconds`` bounds each answer; ``at_once`` requests are sent together, if it takes so many."""

    def __init__(
        self, descriptor: ModuleDescriptor, examples: Sequence[Example], report: Report, seconds: float, at_once: int
    ) -> None:
        self._report = report
        self._seconds = seconds
        self._at_once = min(at_once, descriptor.limits.concurrency or at_once)
        self._large = descriptor.message_bytes > 2 * _LARGE
        self._examples = examples
        self._judge = Judge(descriptor)
        self._runs = Runs(examples, self._judge, report, seconds)

    async def run(self, wire: Wire) -> None:
        """Ask everything, or stop after a ``health`` without an answer."""
        course = Course(wire)
        self._report.look("MSG-01", *wire.rules)
        try:
            await course.take(self._first)
            await course.settle()
            if not self._report.stopped:
                await self._rest(course, wire)
                await self._end(course)
        finally:
            await course.close()

    async def _rest(self, course: Course, wire: Wire) -> None:
        for name, params in self._odd_params(wire):
            await course.take(partial(self._tolerate, name, params))
        await course.take(self._runs.unknown_op)
        for number in range(len(self._examples)):
            await course.take(partial(self._runs.example, number))
        await course.settle()
        for number in self._runs.one_of_each_op():
            await course.take(partial(self._runs.misfit, number))
        for each in self._runs.one_of_each_op() or (None,):
            await course.take(partial(self._runs.cancel, each))
        await course.settle()
        for late in self._runs.late:
            await course.take(partial(self._runs.cancel_again, late))
        await course.settle()
        if self._at_once > 1 and self._report.status("CANCEL-03") != "broken":  # that server is gone
            await course.take(partial(self._runs.at_once, self._at_once))
            await course.settle()

    async def _end(self, course: Course) -> None:
        """Look at how the module ends: twice if it is late, since the machine may be busy."""
        if await course.end():
            return
        await course.take(self._health)
        await course.settle()
        if not await course.end():
            self._report.broke(
                "STDIO-11", "it still ran a second after the end of its stdin", during="the end of stdin"
            )

    async def _health(self, lane: Lane) -> None:
        await lane.ask(self._request("health", {}))

    async def _first(self, lane: Lane) -> None:
        answer = await lane.ask(self._request("health", {}))
        if answer.reply is None:
            self._report.stopped = "health got no answer, so nothing else was asked"
            return
        lane.look("HEALTH-01")
        self._runs.health_is_sound = self._judge.health(lane, answer)
        self._judge.describe(lane, await lane.ask(self._request("describe", {})))
        lane.look("DESCRIBE-05")
        self._judge.ops(lane, [each.op for each in self._examples if each.error is None])

    def _odd_params(self, wire: Wire) -> list[tuple[str, dict[str, Any] | None]]:
        """Give params of ``health`` that make no difference to a sound module, each with the rule that says so."""
        odd: list[tuple[str, dict[str, Any] | None]] = [("MSG-05", {"x-unknown": {"nested": [None]}})]
        if "STDIO-09" in wire.rules:
            odd += [("MSG-06", None), ("STDIO-09", {"x-unknown": _SEPARATORS})]
        return [*odd, ("MSG-04", {"x-unknown": "x" * _LARGE})] if self._large else odd

    async def _tolerate(self, name: str, params: dict[str, Any] | None, lane: Lane) -> None:
        """Ask for ``health`` as before, with params that make no difference."""
        lane.look(name)
        subject = f"health, to see whether {self._report.requirements[name].text}"
        with lane.blaming(name):
            self._judge.health(lane, await lane.ask(self._request("health", params, subject)))

    def _request(self, method: str, params: dict[str, Any] | None, subject: str = "") -> Request:
        return Request(method=method, params=params, subject=subject or method, seconds=self._seconds)
