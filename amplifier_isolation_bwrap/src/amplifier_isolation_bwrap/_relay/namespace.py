"""Network namespaces: one for each process that is confined, with the addresses that it needs, and listeners there.

Owns the calls of the system for it. A socket belongs to the namespace in which it was made, whoever has it: so this
process listens in there, and connects out here. A thread that has made a namespace has left the host's for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_ADDRESS, _SET_NETMASK, _SET_FLAGS = 0x8916, 0x891C, 0x8914
_UP = 0x41  # IFF_UP, IFF_RUNNING
_LOOPBACK = 1  # the index of the device in each namespace
_FREEBIND = 78  # IPV6_FREEBIND
_BACKLOG = 128
_NAME_PORT = 53


class Opened(NamedTuple):
    """What there is of a new namespace: its descriptor, a listener for each target, and the name server's sockets."""

    net: int
    listeners: list[socket.socket]
    datagrams: socket.socket
    names: socket.socket

    def close(self) -> None:
        """Close all of it."""
        for sock in (*self.listeners, self.datagrams, self.names):
            sock.close()
        os.close(self.net)


def enter_user_namespace() -> int:
    """Make a user namespace for this process, in which it may make others, and give a descriptor of it.

    The process must have one thread. The user stays the same inside. Raises ``OSError``.
    """
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def open_namespace(places: list[tuple[str, int]], name_server: str) -> Opened:
    """Make a network namespace with listeners at these addresses and ports. The thread that calls it has to end then.

    Raises ``OSError``.
    """
    _unshare(_NEW_NET)
    with contextlib.ExitStack() as stack:
        net = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, net)
        _bring_up()
        for number, address in enumerate(dict.fromkeys(address for address, _ in places), 1):
            _add_address(address, number)
        listeners = [_listen(address, port, stack) for address, port in places]
        names = _listen(name_server, _NAME_PORT, stack)
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.settimeout(0)
        datagrams.bind((name_server, _NAME_PORT))
        stack.pop_all()
    return Opened(net, listeners, datagrams, names)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # Python has it since 3.12
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _bring_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP))


def _add_address(text: str, number: int) -> None:
    """Give the loopback device an address of the network, so that the module finds there what it asks for."""
    address = ipaddress.ip_address(text)
    if address.is_loopback:  # they are all there
        return
    if isinstance(address, ipaddress.IPv6Address):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SET_ADDRESS, struct.pack("16sIi", address.packed, 128, _LOOPBACK))
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = f"lo:{number}".encode()
        for request, value in ((_SET_ADDRESS, address.packed), (_SET_NETMASK, b"\xff" * 4)):
            fcntl.ioctl(sock, request, struct.pack("16sHH4s16x", name, socket.AF_INET, 0, value))


def _listen(address: str, port: int, stack: contextlib.ExitStack) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    listener.settimeout(0)
    if family == socket.AF_INET6:  # Linux looks for a moment whether others have the address
        listener.setsockopt(socket.IPPROTO_IPV6, _FREEBIND, 1)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    return listener
