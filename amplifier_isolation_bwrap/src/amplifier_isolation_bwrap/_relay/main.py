"""The process: what the kernel asks of it over a socket, and its end, which is the kernel's.

Owns the messages, each a packet of JSON. First this process sends ``{"user": FD}``, or ``{"error": TEXT}`` and ends. To
``{"targets": [[HOST, PORT, ADDRESS], …], "name_server": ADDRESS, "names": {NAME: ADDRESS}, "connections": N,
"idle": SECONDS}`` it replies ``{"net": FD}`` with two descriptors, or ``{"error": TEXT}``. FD is a number of its own,
below ``/proc/PID/fd``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import threading
from typing import Any

from .namespace import Opened, enter_user_namespace, open_namespace
from .network import Network

_REQUEST_MAX = 1024 * 1024


def main(fd: int) -> None:
    """Serve one kernel, until it has gone or closes the socket with this descriptor."""
    control = socket.socket(fileno=fd)
    try:
        user = enter_user_namespace()
    except OSError as error:
        _send(control, {"error": f"no user namespace can be made: {error.strerror}"})
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _send(control, {"user": user})
    asyncio.run(_serve(control))


async def _serve(control: socket.socket) -> None:
    control.settimeout(0)
    relay = _Relay(control)
    asyncio.get_running_loop().add_reader(control, relay.on_request)
    await relay.over.wait()
    control.close()


class _Relay:
    """The networks of one kernel."""

    def __init__(self, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._networks: set[Network] = set()
        self.over = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    def on_request(self) -> None:
        """Take one request, or the end."""
        try:
            packet = self._control.recv(_REQUEST_MAX)
        except ConnectionError:
            packet = b""
        if not packet:
            self._loop.remove_reader(self._control)
            self._ending = self._loop.create_task(self._end())
            return
        # a thread that makes a network namespace stays there, so each is made in one of its own
        try:
            threading.Thread(target=self._open, args=(json.loads(packet),), daemon=True).start()
        except RuntimeError as error:
            _send(self._control, {"error": f"no thread can be started: {error}"})

    async def _end(self) -> None:
        for network in list(self._networks):
            network.end()
        if self._networks:
            await asyncio.wait([network.over for network in self._networks])
        self.over.set()

    def _open(self, asked: dict[str, Any]) -> None:
        opened: Opened | str
        try:
            opened = open_namespace([(address, port) for _, port, address in asked["targets"]], asked["name_server"])
        except OSError as error:
            opened = f"no network namespace can be made: {error.strerror}"
        self._loop.call_soon_threadsafe(self._reply, asked, opened)

    def _reply(self, asked: dict[str, Any], opened: Opened | str) -> None:
        if isinstance(opened, str):
            _send(self._control, {"error": opened})
            return
        with contextlib.ExitStack() as ends:
            try:
                sync, held = map(ends.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
                report, read = map(ends.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            except OSError as error:  # there is no descriptor left
                opened.close()
                _send(self._control, {"error": f"no network can be held: {error.strerror}"})
                return
            ends.pop_all()
        network = Network(opened, asked, sync, report)
        self._networks.add(network)
        network.over.add_done_callback(lambda _: self._networks.discard(network))
        network.start()
        with held, read:
            _send(self._control, {"net": opened.net}, held.fileno(), read.fileno())


def _send(control: socket.socket, told: dict[str, Any], *fds: int) -> None:
    with contextlib.suppress(OSError):  # the kernel has gone, and its end follows
        socket.send_fds(control, [json.dumps(told).encode()], fds)
