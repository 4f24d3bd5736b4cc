"""What every module finds in its sandbox: the system's programs and libraries, ``/proc``, ``/dev``, a user's name.

Owns that list, and what of it needs the network. What one module has beyond it is not here.
"""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from ._dependencies import SYSTEM
from ._mounts import SCRATCH, MountTable

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


class RootFilesystem:
    """What this host has of it; looked up once."""

    def __init__(self) -> None:
        self._always = MountTable.system([*SYSTEM, *_found(_ETC)])
        self._network = MountTable.system(_found(_ETC_NETWORK))

    def add_to(self, view: MountTable, keep: Callable[[str], int], *, network: bool) -> None:
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


def _found(names: Sequence[str]) -> list[str]:
    return [path for name in names for path in glob.glob(f"/etc/{name}")]
