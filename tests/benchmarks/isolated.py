"""The start of a module in a sandbox until its first byte, beside the same module as an ordinary process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

import attrs
from rounds import Contender, compare
from table import Goal, Row

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import open_isolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from rounds import Measure, Pace

    from amplifier_core.hookspecs import Isolation

_MODULES = {
    "sh": ("sh", "-c", "echo; read -r _"),
    "Python": (sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"),
}
_HOSTS = ("net:connect:one.example:443", "net:connect:two.example:443")  # they are not connected to
_AMOUNTS = {(): 6000.0, _HOSTS: 14000.0}  # µs, by what is granted


async def rows(pace: Pace) -> list[Row]:
    """Measure a shell, which starts at once, also with hosts, and this Python, which loads its libraries.

    Without bwrap give nothing.
    """
    isolation = open_isolation({})
    if reason := isolation.trial():
        print(f"isolated: {reason}", file=sys.stderr)
        return []
    try:
        rows = [await _row(name, command, isolation, pace) for name, command in _MODULES.items()]
        if isolation.unenforced(_HOSTS):
            print(f"isolated: {isolation.why_unenforced(_HOSTS[0])}", file=sys.stderr)
            return rows
        return [*rows, await _row("sh, with two hosts", _MODULES["sh"], isolation, pace, _HOSTS)]
    finally:
        isolation.close()


async def _row(
    name: str, command: tuple[str, ...], isolation: Isolation, pace: Pace, granted: tuple[str, ...] = ()
) -> Row:
    told = {"name": "start", "kind": "tool", "capabilities": list(granted), "transport": {"type": "stdio"}}
    descriptor = ModuleDescriptor.from_mapping(told)
    launch = Launch(command=command, cwd="/", env={"PATH": os.environ["PATH"]})
    samples = await compare(
        (
            Contender("plain", _starting(lambda: launch), at_most=1),
            Contender(
                "isolated", _starting(lambda: isolation.plan(launch, descriptor).confine(launch, granted)), at_most=1
            ),
        ),
        pace,
    )
    row = Row.of(f"start isolated, beyond a plain start: {name}", samples, limit="plain", ours="isolated")
    more = median(one - other for one, other in zip(samples["isolated"], samples["plain"], strict=True))
    return attrs.evolve(row, ours=more * 1e6, goal=Goal(amount=_AMOUNTS[granted]))


def _starting(launch: Callable[[], Launch]) -> Measure:
    async def measure(n: int) -> float:
        return sum(_start(launch) for _ in range(n)) / n

    return measure


def _start(make: Callable[[], Launch]) -> float:
    """Start a module, give the seconds until its first byte, and let it end."""
    began = time.perf_counter()
    launch = make()
    with launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - began
