"""One row of the table of faults: a fault, and its expected outcome.

It owns only the record. The faults of modules and servers are in ``of_…``; ``stage`` runs them.

``bound`` is the contract: seconds from the call, or from the deadline if that ends it, to the outcome. On an idle
machine there is a wide margin. ``python3 noxfile.py -s faults``, which runs alone, holds every case to it. Under
pytest other tests run at the same time, and the system may not schedule a process for 100 ms. There ``patience``
counts: ten times the bound, and at least a second. That still tells a prompt outcome from a wait for the deadline,
because the deadline is a minute away in each case that no deadline is to end.
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
