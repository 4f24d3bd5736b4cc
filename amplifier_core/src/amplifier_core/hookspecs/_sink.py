"""What a sink of events implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Sink(Protocol):
    """Where events go. The kernel calls it for each event, in ``seq`` order, before the call that emitted it returns.

    It runs in the thread of the kernel's event loop and delays everything there: a write to a local file is fine, a
    network is not. A sink that sends events elsewhere keeps a queue of its own. Any object with these two methods will
    do, so this is a protocol and no base class: there is nothing to inherit.

    Both methods are plain functions. The kernel does not await: a sink with an ``async def`` is refused when the kernel
    opens, and an event for which a method gives a coroutine counts as lost. ``check_sink`` of
    ``amplifier_core.testing`` looks at all of this.
    """

    def write(self, line: bytes) -> None:
        """Take one envelope (section 7), a JSON line with its end. The kernel counts what raises, and goes on.

        A write that fails raises: then the event is counted as lost, and ``sink:error`` tells the other sinks. The next
        event is tried all the same.
        """

    def close(self) -> None:
        """Write what is queued, within seconds, and release everything. Nothing is written afterwards. Idempotent.

        What it raises is raised where the kernel is closed.
        """


class SinkSpec:
    """The hook of a sink plugin."""

    @hookspec(firstresult=True)
    def open_sink(self, options: Mapping[str, Any]) -> Sink | None:
        """Make a sink from the embedder's options, without their ``type``. Raise ``BadRequest`` for a wrong one."""
