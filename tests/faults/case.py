"""One row of the table of faults: what goes wrong, and what shall come of it.

Owns the record alone. What a module or a server does wrong is in ``of_stdio`` and ``of_http``, running it in ``stage``.

``bound`` is the contract: seconds from the call, or from the deadline where that is what ends it, to the outcome. On a
machine that does nothing else there is a wide margin, and ``python3 noxfile.py -s faults``, which runs alone, holds
every case to it. Under pytest three Pythons' tests may run at once, and a process that is not scheduled for 100 ms is
nobody's fault: there ``patience`` counts, ten times the bound and no less than a second. It still tells what the bound
is there for, a prompt outcome, from what must not be, a wait for the deadline: that of a case that no deadline is to
end is a minute away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.faults.stage import Stage


@attrs.frozen(kw_only=True)
class Case:
    """A fault, and what shall be seen of it. ``play`` sets the stage and calls its ``provoke`` once."""

    name: str
    code: str
    """Of the protocol; ``ok`` where the fault must not show."""
    bound: float
    play: Callable[[Stage], Awaitable[None]]
    deadline: float | None = None
    """Seconds that the caller gives; only where they are what ends it."""
    result: Any = None
    """What comes back where the code is ``ok``."""
    says: str = ""
    """Stands in the error: the message, or the JSON of its details."""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    """Stands in the error's details; a text may be the end of the one there."""
    memory: int | None = None
    """Bytes that the kernel's process may allocate meanwhile."""
    logged: Mapping[str, Any] = attrs.field(factory=dict)
    """Events of which the log has one each, with this ``data``."""

    @property
    def patience(self) -> float:
        """Give the bound that holds on a busy machine too."""
        return max(10 * self.bound, 1.0)


@attrs.frozen
class Seen:
    """What came of a fault."""

    code: str
    seconds: float
    message: str
