"""The trial: whether bwrap, started with all that a module is started with, keeps here what it promises.

Owns the probe and the reason why not. It knows the usual ones, and says which of them is this host's.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Launch

_PROBE = """
while read -r line; do echo $line; done </proc/self/status
while read -r name rest; do echo device $name; done </proc/net/dev
for place in / /tmp /dev /dev/shm /proc/sys/kernel/hostname; do test -w $place && echo open $place; done
test -e /proc/1/environ && echo open /proc/1
"""
COMMAND = ("/bin/sh", "-c", _PROBE)
"""The probe, in plain sh: it says what it is, and what it could do and should not."""

_SECONDS = 30.0  # a host that takes down many network namespaces makes the next one wait
_PROMISED = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0"),
}
_SWITCHES = (  # a file, what it says where namespaces are closed, and what that means
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor closes user namespaces to bwrap"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
)
_CONTAINER = ("/.dockerenv", "/run/.containerenv")


def run_trial(launch: Launch, root: Path = Path("/")) -> str:
    """Start the confined probe, and say in one line what it could not do or could; empty if all is well."""
    try:
        told, said, code = _run(launch)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap could not be tried: {error}"
    if "NoNewPrivs" not in told:
        last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
        return f"{last} ({_likely(root)})"
    return _broken(told)


def _run(launch: Launch) -> tuple[str, str, int]:
    """Give what the probe says on stdout and on stderr, and its exit code."""
    with launch.start(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            return *process.communicate(timeout=_SECONDS), process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _broken(told: str) -> str:
    """Find a promise that was not kept."""
    facts = dict(re.findall(r"^(\w+): 0*(\d+)$", told, re.MULTILINE))
    for name, value in _PROMISED.items():
        if facts.get(name) != value.lstrip("0") and not (value == "0" and facts.get(name) == "0"):
            return f"bwrap starts, but a module would have {name} {facts.get(name)}"
    found = re.findall(r"^device (?!Inter-|face|lo:)(\S+)|^open (\S+)", told, re.MULTILINE)
    return f"bwrap starts, but a module would reach {''.join(found[0])}" if found else ""


def _likely(root: Path) -> str:
    for name, value, meaning in _SWITCHES:
        try:
            if (root / name[1:]).read_text().strip() == value:
                return meaning
        except OSError:
            continue
    if any((root / name[1:]).exists() for name in _CONTAINER):
        return "this is a container, whose own filter may forbid namespaces"
    return "is something here forbidding user namespaces?"
