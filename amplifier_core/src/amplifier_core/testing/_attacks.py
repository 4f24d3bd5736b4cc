"""The program that attacks an isolation from inside: ``python attacks.py '{"attack": NAME, …}'``.

It is copied into the folder of a module, and imports nothing of the kernel. What an attack got is a line of JSON on
stdout; one that is stopped raises, or ends the process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS = 5.0
_LIFE_SECONDS = 4.0  # of what is to be ended, and ends by itself if it is not


def read(path: str, **_: Any) -> str:
    """Read a file."""
    return Path(path).read_text()


def write(path: str, **_: Any) -> str:
    """Write to a file, or make one."""
    with Path(path).open("a") as file:
        file.write("# planted\n")
    return "written"


def scratch(**_: Any) -> str:
    """Write to the scratch folder."""
    return write(os.path.join(os.environ["TMPDIR"], "planted"))  # noqa: PTH118


def read_by_link(secret: str, open: str, **_: Any) -> str:  # noqa: A002 - the name in the table of the check
    """Lead a link out of a folder that was granted."""
    link = Path(open, f"link-{os.getpid()}")
    link.symlink_to(secret)
    return link.read_text()


def read_by_hard_link(secret: str, open: str, **_: Any) -> str:  # noqa: A002
    """Give a file a second name in a folder that was granted."""
    link = Path(open, f"hard-link-{os.getpid()}")
    os.link(secret, link)
    return link.read_text()


def read_by_process(secret: str, **_: Any) -> str:
    """Go through the root folder of any other process."""
    return _first(lambda pid: Path(f"/proc/{pid}/root{secret}").read_text())


def tcp(port: int, **_: Any) -> str:
    """Reach a service of the host by TCP."""
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
        return connection.recv(100).decode()


def unix_socket(path: str, **_: Any) -> str:
    """Reach a service of the host by a socket that is a file, or by a name that is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(path.replace("@", "\0"))
        return connection.recv(100).decode()


def variable(name: str, **_: Any) -> str:
    """See a variable of its own."""
    return os.environ[name]


def variable_of_others(token: str, **_: Any) -> str:
    """See the environment of any other process."""

    def look(pid: str) -> str:
        if token.encode() not in Path(f"/proc/{pid}/environ").read_bytes():
            raise OSError("it is not there")
        return f"that of process {pid}"

    return _first(look)


def descriptor(mark: str, **_: Any) -> str:
    """Find an open descriptor that leads to the host."""
    links = (os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 64) if os.path.islink(f"/proc/self/fd/{fd}"))  # noqa: PTH114, PTH115
    return next(link for link in links if mark in link)


def see_others(victim: int, token: str, **_: Any) -> str:
    """See another process."""
    if token.encode() not in Path(f"/proc/{victim}/cmdline").read_bytes():
        raise OSError("it is another one")
    return f"process {victim}"


def signal_others(victim: int, **_: Any) -> str:
    """Signal another process."""
    os.kill(victim, 0)
    return f"process {victim}"


def survive(**_: Any) -> str:
    """Leave a process behind, in a session of its own, which has the same stdout."""
    if not os.fork():  # pragma: no cover - a child of this one
        os.setsid()
        time.sleep(_LIFE_SECONDS)
        os._exit(0)
    return "left behind"


def outlive(**_: Any) -> str:
    """Go on when what started it is killed. It is: the next line is not waited for."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(_LIFE_SECONDS)
    return "still there"


def _first(look: Callable[[str], str]) -> str:
    """Give what a look at one of the other processes gives."""

    def looks() -> Iterator[str]:
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and int(folder.name) != os.getpid():
                    yield look(folder.name)
            except OSError:
                continue

    return next(looks())


def run(asked: dict[str, Any]) -> None:
    """Run one attack, and write what it got."""
    attack = globals()[asked.pop("attack")]
    sys.stdout.write(json.dumps({"got": attack(**asked)}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":  # pragma: no cover - in a process that is confined
    run(json.loads(sys.argv[1]))
