"""What every module finds in its sandbox: the system's programs and libraries, ``/proc``, ``/dev``, a user's name.

Owns that list, and what of it needs the network. What one module has beyond it is not here.
"""

from __future__ import annotations

import glob
import os
import stat
from itertools import chain
from typing import TYPE_CHECKING

from ._command import SYSTEM
from ._view import SCRATCH, View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USER = 1000
"""The user inside, whoever runs the kernel: a module has no use for knowing that it is root's."""

_ACCOUNTS = {
    "/etc/passwd": f"module:x:{USER}:{USER}::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": f"module:x:{USER}:\nnogroup:x:65534:\n",
}
_ETC = ("ld.so.cache", "alternatives", "localtime")  # what it takes to start and to tell the time
_ETC_NETWORK = (  # no keys, no accounts
    "hosts",
    "resolv.conf",
    "nsswitch.conf",
    "host.conf",
    "gai.conf",
    "services",
    "protocols",
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "ca-certificates/extracted",
    "crypto-policies",
)
_ANYBODY_WRITES = 0o222
_SAFE_IN_PROC = ("self", "thread-self", "irq", "bus", "mtrr", "pressure")  # own, read-only anyway, or for capabilities


class House:
    """What this host has of it, for modules of this user; looked up once."""

    def __init__(self, uid: int) -> None:
        self._always = View.system([*SYSTEM, *_found(_ETC)])
        self._network = View.system(_found(_ETC_NETWORK))
        self._writable = _writable_in_proc() if uid == 0 else []

    def furnish(self, view: View, keep: Callable[[str], int], *, network: bool) -> None:
        """Put it there. ``keep`` makes a descriptor of a text."""
        view.show_system(self._always)
        if network:
            view.show_system(self._network)
        for path, text in _ACCOUNTS.items():
            view.put(path, "--perms", "0444", "--file", str(keep(text)))
        view.put(SCRATCH, "--dir")
        view.mount("/dev", "--dev")
        view.mount("/proc", "--proc")
        view.hide("/proc/1")  # bwrap: no filter binds it, so nobody may write to its memory
        for path in self._writable:
            view.mount(path, "--ro-bind", path)


def _found(names: Sequence[str]) -> list[str]:
    return [path for name in names for path in glob.glob(f"/etc/{name}")]


def _writable_in_proc() -> list[str]:
    """List what uid 0 could write to without any capability: to these files, a sandbox's user is still that one."""
    names = [name for name in os.listdir("/proc") if not name.isdecimal() and name not in _SAFE_IN_PROC]
    return [path for name in names if _has_writable(path := f"/proc/{name}")]


def _has_writable(path: str) -> bool:
    if os.path.islink(path):
        return False
    files = chain([path], (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names))
    return any(stat.S_ISREG(mode) and mode & _ANYBODY_WRITES for mode in map(_mode, files))


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:  # gone meanwhile
        return 0
