"""The span that the embedder's code runs in: one of its own, or for a policy hook what it is asked about.

Owns the context variable, so a task that code starts there is in the same span. Kernels do not share it. Nothing of the
kernel's own runs in one: what it does in the background would be told as a part of whatever started it.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core._protocol.ids import Span

    from .runtime import Runtime

P = ParamSpec("P")
T = TypeVar("T")
Spans = tuple["Span", ...]  # those that have not ended here, the innermost one last

_NESTED = 256  # tasks may start tasks in spans without end, and none is to keep all that were before
_spans: ContextVar[Mapping[Runtime, Spans]] = ContextVar("amplifier_core spans", default={})  # noqa: B039 - never changed


def current_span(runtime: Runtime) -> Span | None:
    """Give the span of this kernel that the caller runs in."""
    within = _spans.get().get(runtime)
    return within[-1] if within else None


def enter(runtime: Runtime, span: Span) -> None:
    """Let what follows in this context, and in tasks that start there, run in a span. ``leave`` ends it."""
    spans = _spans.get()
    _spans.set({**spans, runtime: (*spans.get(runtime, ())[-_NESTED:], span)})


def leave(runtime: Runtime, span: Span) -> None:
    """Return to the span that was before. One that began later, and has not ended, stays: generators end in any order.

    In a context that is not in the span, such as that of somebody else who ends a generator, nothing is to be done.
    """
    spans = _spans.get()
    within = spans.get(runtime, ())
    innermost = within[-1:] and within[-1] is span
    left = within[:-1] if innermost else tuple(each for each in within if each is not span)
    if len(left) < len(within):
        others = {kernel: those for kernel, those in spans.items() if kernel is not runtime}
        _spans.set({**others, runtime: left} if left else others)


def outside(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that starts a task for the kernel itself: that is in no span."""
    context = copy_context()
    context.run(_spans.set, {})
    return context.run(make, *args, **kwargs)
