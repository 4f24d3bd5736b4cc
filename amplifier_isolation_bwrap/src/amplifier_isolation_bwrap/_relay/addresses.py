"""Addresses of the network: which are public, and to which one a connection goes.

Owns the list of what is not public. A name is resolved anew for each connection, and what was checked is connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SECONDS = 10.0  # for the answer of the resolver, and for each attempt to connect
_THREADS = 4  # of one module that wait for the resolver
_TRIED = 8  # addresses of a name

# Not those of `ipaddress.is_global`, which differ between versions, and leave out what clouds use.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/3",
            "168.63.129.16/32",  # Azure's host, which every machine there trusts
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    )
)  # fmt: skip
_GLOBAL = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # where a network without IPv4 puts the addresses of IPv4


class RefusedError(OSError):
    """There is no address to which the connection may go."""


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public network, and no service of the machine or its neighbourhood."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if address.version == 6 and address not in _GLOBAL:  # noqa: PLR2004 - of the protocol
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """Give the address of IPv4 to which one of IPv6 leads, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped


def is_own(address: Address) -> bool:
    """Tell whether an address is this machine's own: what connects to it comes from there. It sends nothing."""
    inner = _inner(address)
    if inner is not None and is_own(inner):
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - of the protocol
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:  # no way leads there, so nothing will be reached
            return False
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address


def parse_address(text: str) -> Address | None:
    """Read an address; ``None`` if the text is a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Resolver:
    """Resolves the names of one module, with few threads: a name server that does not answer holds each for long."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_THREADS)

    async def find(self, host: str, port: int) -> list[Address]:
        """Give the public addresses of a name. Raises ``RefusedError`` without any, ``OSError``, ``TimeoutError``."""
        async with asyncio.timeout(_SECONDS):
            found = await self._ask(host, port)
        addresses = list(dict.fromkeys(map(ipaddress.ip_address, found)))
        public = [address for address in addresses if is_public(address) and not is_own(address)]
        if not public:
            raise RefusedError(f"{host} is {', '.join(map(str, addresses[:_TRIED]))}, which is not public")
        return public[:_TRIED]

    async def _ask(self, host: str, port: int) -> Iterator[str]:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        threading.Thread(target=self._work, args=(host, port, loop, answer), daemon=True).start()
        return (entry[4][0].partition("%")[0] for entry in await answer)

    def _work(self, host: str, port: int, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Any]]) -> None:
        found: list[Any] | OSError
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            found = OSError(f"{host}: {error}")
        loop.call_soon_threadsafe(self._settle, answer, found)

    def _settle(self, answer: asyncio.Future[list[Any]], found: list[Any] | OSError) -> None:
        self._free.release()
        if answer.done():  # nobody waits any more
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)


async def connect(addresses: list[Address], port: int) -> socket.socket:
    """Connect to the first of some addresses that answers. Raises ``OSError`` with what the last one said."""
    last: OSError = RefusedError("there is no address")
    for address in addresses:
        try:
            async with asyncio.timeout(_SECONDS):
                return await _connect(address, port)
        except TimeoutError:
            last = OSError(f"{address} port {port}: no answer within {_SECONDS:g} s")
        except OSError as error:
            last = OSError(f"{address} port {port}: {os.strerror(error.errno or 0)}")
    raise last


async def _connect(address: Address, port: int) -> socket.socket:
    outer = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)  # noqa: PLR2004
    try:
        outer.settimeout(0)
        await asyncio.get_running_loop().sock_connect(outer, (str(address), port))
    except BaseException:
        outer.close()
        raise
    return outer
