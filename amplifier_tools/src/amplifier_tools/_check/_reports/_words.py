"""A finding in words, a line each. All of them are printable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_tools._text import line_of, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_tools._check._report import Finding

__all__ = ["words_of"]

_STDERR_LINES = 10
_WIDTH = 300


def words_of(finding: Finding) -> Iterator[str]:
    """Say what is wrong, when, and what shows it."""
    rule = finding.requirement
    where = "preamble" if rule.section == "preamble" else f"section {rule.section}"
    op = f"op {printable(finding.op)}: " if finding.op else ""
    yield f"{rule.id} {rule.level} {rule.text} (PROTOCOL.md, {where})"
    yield f"  {op}{line_of(finding.problem, 500)}{f' ({finding.times} times)' if finding.times > 1 else ''}"
    yield f"  asked: {line_of(finding.during, _WIDTH)}"
    if finding.line:
        yield f"  line: {finding.line}"
    if stderr := finding.stderr.strip("\n"):
        yield "  stderr:"
        yield from (f"    {line_of(line, _WIDTH)}" for line in stderr.splitlines()[-_STDERR_LINES:])
