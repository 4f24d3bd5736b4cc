"""The report for people: colours only add to what the words say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from ._words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from amplifier_core import ModuleDescriptor
    from amplifier_tools._check._report import Report

__all__ = ["print_report"]

_STYLES = {"MUST": "bold red", "SHOULD": "bold yellow"}


def print_report(console: Console, report: Report, descriptor: ModuleDescriptor, *, flawed: bool, every: bool) -> None:
    """Print what was looked at, what was found, and the verdict. ``every`` rule has a line, if that is asked for."""
    for text in _lines(report, descriptor, flawed=flawed, every=every):
        console.print(text, soft_wrap=True)


def _lines(report: Report, descriptor: ModuleDescriptor, *, flawed: bool, every: bool) -> Iterator[Text]:
    kind = f"{descriptor.kind} {descriptor.name}, over {descriptor.transport['type']}"
    yield Text(f"{kind}, protocol {report.protocol}", style="bold")
    yield Text(f"runs as  {report.runs_as}")
    yield Text(f"ops ran  {', '.join(f'{op} {_times(n)}' for op, n in report.runs.items()) or 'none: see --op'}")
    for rule in report.requirements.values() if every else ():
        yield Text(f"{report.status(rule.id):<8} {rule.id:<12} {rule.level:<7} {rule.text}")
    for finding in report.findings():
        head, *rest = words_of(finding)
        yield Text()
        yield Text(head, style=_STYLES[finding.requirement.level])
        yield from map(Text, rest)
    yield Text()
    yield Text(_verdict(report, flawed=flawed), style="bold red" if flawed else "bold green")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _verdict(report: Report, *, flawed: bool) -> str:
    counts = Counter(report.status(name) for name in report.requirements)
    said = f"{counts['held']} rules held, {counts['broken']} broken, {counts['skipped']} not looked at"
    stopped = f"; {report.stopped}" if report.stopped else ""
    return f"{'FLAWED' if flawed else 'SOUND'}: {said}{stopped}"
