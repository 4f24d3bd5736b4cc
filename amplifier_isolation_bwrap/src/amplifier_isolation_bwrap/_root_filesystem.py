"""The part of a sandbox's root file system that every module gets: the system, ``/proc``, ``/dev``, an account.

Owns the list of these paths, and of those that need the network. What one module gets beyond them is not here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._paths import SCRATCH, SYSTEM, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._hosts import Hosts
    from ._mounts import MountTable
    from ._paths import ResolvedPath

USER = 1000
"""The user id inside a sandbox, whatever user runs the kernel: a module need not know that root does."""

_ACCOUNTS = {
    "/etc/passwd": f"module:x:{USER}:{USER}::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": f"module:x:{USER}:\nnogroup:x:65534:\n",
}
_ETC = ("ld.so.cache", "alternatives", "localtime")  # what programs need to start and to tell the time
_ETC_NETWORK = ("host.conf", "gai.conf", "services", "protocols")
_ETC_NAMES = ("hosts", "resolv.conf", "nsswitch.conf")
_ETC_TLS = ("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "pki/tls/certs", "pki/tls/openssl.cnf", "crypto-policies")
_ETC_CA = ("pki/ca-trust/extracted", "ca-certificates/extracted")  # no private keys in any of them, and no accounts


class RootFilesystem:
    """The paths of the system that this host has. It looks them up once, for all launches."""

    def __init__(self) -> None:
        self._always = _existing([*SYSTEM, *(f"/etc/{name}" for name in _ETC)])
        self._network = _existing([f"/etc/{name}" for name in _ETC_NETWORK + _ETC_TLS + _ETC_CA])
        self._names = _existing([f"/etc/{name}" for name in _ETC_NAMES])

    def add_to(
        self, mounts: MountTable, memory_file: Callable[[str], int], *, network: bool, hosts: Hosts | None
    ) -> None:
        """Add the mounts of every module. ``memory_file`` makes a file descriptor from a text."""
        mounts.bind_system(self._always)
        if network:
            mounts.bind_system(self._network)
        if network and hosts is None:
            mounts.bind_system(self._names)
        for path, text in hosts.files() if hosts else ():
            mounts.mount(path, "--perms", "0444", "--ro-bind-data", str(memory_file(text)))
        for path, text in _ACCOUNTS.items():
            mounts.add_default(path, "--perms", "0444", "--file", str(memory_file(text)))
        mounts.add_default(SCRATCH, "--dir")
        mounts.mount("/dev", "--dev")
        mounts.mount("/proc", "--proc")
        mounts.mask("/proc/1")  # this is bwrap, which has no filter: a module must not write to its memory


def _existing(paths: Sequence[str]) -> list[ResolvedPath]:
    return [resolve(path) for path in paths if os.path.exists(path)]
