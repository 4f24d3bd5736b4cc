"""The trial: a probe in a sandbox, which shows whether bwrap keeps on this host what it promises.

Owns the probe, and the likely reason for a failure. It does not make the sandbox: it gets a confined launch.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Launch

_SCRIPT = """
while read -r line; do echo $line; done </proc/self/status
while read -r name rest; do echo device $name; done </proc/net/dev
for place in / /tmp /dev /dev/shm /proc/sys/kernel/hostname; do test -w $place && echo open $place; done
test -e /proc/1/environ && echo open /proc/1
"""
_SCRIPT_OF_MOUNTS = """
while read -r line; do
    case $line in *" shared:"*|*" master:"*) echo open what the host mounts later; break;; esac
done </proc/self/mountinfo
"""
_SCRIPT_OF_HOSTS = """
while read -r number local rest; do echo socket $local; done </proc/net/tcp
while read -r name rest; do echo route $name; done </proc/net/route
"""
PROBE = ("/bin/sh", "-c", _SCRIPT)
"""The command of the probe, in plain sh: it prints its status, and each thing that it could access but should not."""
PROBE_OF_PRIVATE_MOUNTS = ("/bin/sh", "-c", _SCRIPT + _SCRIPT_OF_MOUNTS)
"""The same for a sandbox whose mounts shall be private."""
PROBE_OF_HOSTS = ("/bin/sh", "-c", _SCRIPT + _SCRIPT_OF_HOSTS)
"""The same for a sandbox that has ``TRIED_HOSTS``."""
TRIED_HOSTS = ("net:connect:trial.invalid:443",)
_LISTENERS = {"0200007F:01BB", "3500007F:0035"}  # of that host and of the name server, as Linux writes them

_SECONDS = 30.0  # a host that is removing many network namespaces delays a new one
_PROMISED = {"NoNewPrivs": "1", "Seccomp": "2"} | dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0")
_SETTINGS = (  # a file, its content where namespaces are forbidden, and the reason
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor closes user namespaces to bwrap"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
)
_CONTAINER = ("/.dockerenv", "/run/.containerenv")


def run_trial(launch: Launch, root: Path = Path("/")) -> str:
    """Start the confined probe, and say in one line which promise is not kept, or why it did not run; else empty."""
    try:
        out, err, code = _run(launch)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap could not be tried: {error}"
    if "NoNewPrivs" not in out:
        last = (err.strip().splitlines() or [f"exit code {code}"])[-1]
        return f"{last} ({_likely_reason(root)})"
    return _broken_promise(out)


def run_trial_of_hosts(launch: Launch) -> str:
    """Start the confined probe of hosts, and say what is wrong with its network; empty if it has just the hosts."""
    try:
        out, err, code = _run(launch)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap could not be tried: {error}"
    if "NoNewPrivs" not in out:
        return (err.strip().splitlines() or [f"exit code {code}"])[-1]
    if broken := _broken_promise(out):
        return broken
    found = set(re.findall(r"^socket (?!local)(\S+)|^route (?!Iface)(\S+)", out, re.MULTILINE))
    return "" if {one or other for one, other in found} == _LISTENERS else "a module would be in another network"


def _run(launch: Launch) -> tuple[str, str, int]:
    """Return the probe's stdout, its stderr and its exit code."""
    with launch.start(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            return *process.communicate(timeout=_SECONDS), process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _broken_promise(out: str) -> str:
    """Name a promise that is not kept, from the probe's stdout; empty if all are."""
    facts = dict(re.findall(r"^(\w+): 0*(\d+)$", out, re.MULTILINE))
    for name, value in _PROMISED.items():
        if facts.get(name) != value:
            return f"bwrap starts, but a module would have {name} {facts.get(name)}"
    found = re.findall(r"^device (?!Inter-|face|lo:)(\S+)|^open (.+)$", out, re.MULTILINE)
    return f"bwrap starts, but a module would reach {''.join(found[0])}" if found else ""


def _likely_reason(root: Path) -> str:
    for name, value, reason in _SETTINGS:
        try:
            if (root / name[1:]).read_text().strip() == value:
                return reason
        except OSError:
            continue
    if any((root / name[1:]).exists() for name in _CONTAINER):
        return "this is a container, whose own filter may forbid namespaces"
    return "perhaps this host forbids user namespaces"
