"""The relay process of one kernel, and the networks that it makes: one for each process that may connect to hosts.

Owns the process. It is started when the first host is granted, and ends with the kernel, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import watch_forks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._hosts import Hosts
    from ._options import Options

_PATH = "/usr/bin:/bin"
_SECONDS = 5.0  # for the relay's start and for each answer
_REPORT_SECONDS = 2.0
_REPORT_MAX = 1024 * 1024
_RIGHTS = "2i"  # two descriptors; `socket.recv_fds` leaves them to be inherited by any program that is started here
_RIGHTS_SPACE = 64  # bytes, with their head
_FOLDER = str(Path(__file__).parent)
_START = (  # the package of the relay alone: the one above it imports the kernel
    "import sys, types\n"
    "name = 'amplifier_isolation_bwrap'\n"
    "sys.modules[name] = package = types.ModuleType(name)\n"
    "package.__path__ = [sys.argv[1]]\n"
    "from amplifier_isolation_bwrap._relay.main import main\n"
    "main(int(sys.argv[2]))\n"
)


class Network:
    """The network of one process: ``prefix`` are the words that start it there, ``sync`` a descriptor that it holds."""

    def __init__(self, prefix: tuple[str, ...], sync: int, report: int) -> None:
        self.prefix = prefix
        self.sync = sync
        self._report = report
        self._close = weakref.finalize(self, os.close, report)

    async def end(self) -> Mapping[str, Any]:
        """End the network, and give what was counted: for each host that was asked for."""
        try:
            return {"connections": await asyncio.to_thread(self._read)}
        finally:
            self._close()

    def _read(self) -> Any:
        with socket.socket(fileno=os.dup(self._report)) as report, contextlib.suppress(OSError, ValueError):
            report.settimeout(_REPORT_SECONDS)
            report.shutdown(socket.SHUT_WR)
            return json.loads(report.recv(_REPORT_MAX))
        return {"error": "the relay has ended before it told them"}


class Networks:
    """Makes networks. Any thread may call it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.command: Sequence[str] = (sys.executable, "-I", "-S", "-c", _START, _FOLDER)
        """The words that start the relay."""
        self.env: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._relay: _Relay | None = None

    def open(self, hosts: Hosts) -> Network:
        """Make a network in which a process finds these hosts, and nothing else. Raises ``Unreachable``."""
        nsenter = shutil.which("nsenter", path=_PATH)
        if nsenter is None:
            raise Unreachable("nsenter is not installed; try: apt install util-linux")
        bounds = {"connections": self._options.connections, "idle": self._options.idle_seconds}
        with self._lock:
            relay = self._started()
            try:
                net, fds = relay.ask(hosts.request() | bounds)
            except Unreachable:
                if not relay.close.alive:  # else it could not do this alone: others go through it
                    self._end()
                raise
            places = f"--user={relay.place(relay.user)}", f"--net={relay.place(net)}"
        return Network((nsenter, "--preserve-credentials", *places, "--"), *fds)

    def start(self) -> None:
        """Start the relay, unless it runs. Raises ``Unreachable``."""
        with self._lock:
            self._started()

    def another(self) -> Networks:
        """Give other networks of the same kind, with a relay of their own."""
        other = Networks(self._options)
        other.command, other.env = self.command, self.env
        return other

    def _started(self) -> _Relay:
        if self._relay is None:
            self._relay = _Relay(self.command, self.env)
        return self._relay

    def close(self) -> None:
        """End the relay, and all that goes through it. Idempotent: the next network starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()


class _Relay:
    """One process. Raises ``Unreachable`` if it does not start, or cannot make namespaces."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_SECONDS)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [*command, str(theirs.fileno())],
                    env=dict(env),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                raise Unreachable(f"the relay: {command[0]}: {error.strerror}") from error
        watch_forks(self)
        self.close = weakref.finalize(self, _end, self._process, self._control)
        try:
            self.user: int = self._receive()[0]["user"]
        except Unreachable:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> tuple[int, list[int]]:
        """Have a network made, and give the relay's descriptor of it, and two of our own.

        Raises ``Unreachable``: with the relay's reason, or when the relay has gone, or does not answer; then it is
        closed.
        """
        try:
            self._control.send(json.dumps(request).encode())
        except OSError as error:
            self.close()
            raise Unreachable(f"the relay: {error.strerror}") from error
        reply, fds = self._receive()
        return reply["net"], fds

    def place(self, fd: int) -> str:
        """Give the path of one of the relay's descriptors."""
        return f"/proc/{self._process.pid}/fd/{fd}"

    def after_fork(self) -> None:
        """Close the child's copy: the relay would not see the end of this process."""
        self._control.close()
        self.close.detach()

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            packet, rights, _, _ = self._control.recvmsg(64 * 1024, _RIGHTS_SPACE, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            self.close()
            raise Unreachable(f"the relay: {error}") from error
        if not packet:
            self.close()
        reply = json.loads(packet or '{"error": "it ended"}')
        if "error" in reply:
            raise Unreachable(f"the relay: {reply['error']}")
        return reply, [fd for _, _, held in rights for fd in struct.unpack(_RIGHTS, held)]


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
