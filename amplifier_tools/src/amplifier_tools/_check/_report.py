"""The report of one check: which rules were looked at, how each was broken, and what ran meanwhile.

Owns the findings and the verdict. It does not know how a rule is looked at, and how a report is shown.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import attrs

from amplifier_tools._text import start_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._requirements import Requirement

__all__ = ["Finding", "Report", "Status"]

_LINE_MAX = 300  # characters of a line that is shown
_PROBLEM_MAX = 500
_FINDINGS_MAX = 1000

Status = Literal["held", "broken", "skipped"]


@attrs.define
class Finding:
    """One rule, and how the module broke it: the first time, and how often."""

    requirement: Requirement
    problem: str
    op: str
    """The operation that it is about, "" if it is about none."""
    during: str
    """What the module was asked meanwhile."""
    line: str
    """The line, or the body, that shows it: its beginning, printable; "" if there is none."""
    stderr: str
    """The end of what the module wrote to stderr."""
    times: int = 1


class Report:
    """What is found out about one module. ``requirements`` are the rules, by id."""

    def __init__(self, requirements: Mapping[str, Requirement], protocol: int) -> None:
        self.requirements = requirements
        self.protocol = protocol
        """The version of the protocol that the rules are of."""
        self.runs: Counter[str] = Counter()
        """How often each op was invoked as its author allowed."""
        self.stopped: str = ""
        """Why the check ended before its time."""
        self.runs_as: str = ""
        """How the module runs: confined, trusted, or elsewhere."""
        self._looked: set[str] = set()
        self._findings: dict[tuple[str, str], Finding] = {}

    def look(self, *ids: str) -> None:
        """Note that rules are looked at: those that are not broken are held then."""
        self._looked.update(ids)

    def broke(
        self, name: str, problem: str, *, op: str = "", during: str = "", line: bytes = b"", stderr: str = ""
    ) -> None:
        """Note that a rule was broken. The same rule, broken again by the same op, is counted."""
        self.look(name)
        if (known := self._findings.get((name, op))) is not None:
            known.times += 1
        elif len(self._findings) < _FINDINGS_MAX:
            problem = problem if len(problem) <= _PROBLEM_MAX else f"{problem[:_PROBLEM_MAX]}…"
            shown = start_of(line, _LINE_MAX)
            self._findings[name, op] = Finding(self.requirements[name], problem, op, during, shown, stderr)

    def findings(self) -> list[Finding]:
        """List the findings in the order of the rules."""
        order = list(self.requirements)
        return sorted(self._findings.values(), key=lambda finding: order.index(finding.requirement.id))

    def status(self, name: str) -> Status:
        """Tell whether a rule was held, broken or not looked at."""
        if any(name == broken for broken, _ in self._findings):
            return "broken"
        return "held" if name in self._looked and not self.stopped else "skipped"

    def is_flawed(self, *, strict: bool) -> bool:
        """Tell whether a rule is broken that a module must keep; ``strict``: or one that it should keep."""
        return bool(self.stopped) or any(strict or each.requirement.level == "MUST" for each in self.findings())
