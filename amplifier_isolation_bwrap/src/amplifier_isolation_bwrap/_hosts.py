"""The hosts that a module may connect to: what of the capabilities can be kept, and what the sandbox has of each.

Owns the addresses inside. Every name has one of the loopback's, and an address is there as itself. What connects to it
is the relay's part.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_WORD = "net:connect:"
_NAME = re.compile(r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\Z")  # C libraries read it as an address, others do not
_LOCAL = re.compile(r"(?:.*\.)?localhost\Z")
_FIRST, _NAME_SERVER = (ipaddress.IPv4Address(text) for text in ("127.0.0.2", "127.0.0.53"))
_NOT_MET = "255.255.255.255"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


@attrs.frozen
class Hosts:
    """Hosts and ports, each with the address at which the sandbox has it."""

    targets: tuple[tuple[str, int, str], ...]
    name_server: str
    names: Mapping[str, str]

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the files that tell a program where the hosts are: path and text."""
        lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {name}" for name, address in self.names.items())]
        yield "/etc/hosts", "".join(f"{line}\n" for line in lines)
        yield "/etc/resolv.conf", f"nameserver {self.name_server}\nsearch .\n"
        yield "/etc/nsswitch.conf", _NSSWITCH

    def request(self) -> dict[str, Any]:
        """Give what the relay has to know."""
        return {"targets": self.targets, "name_server": self.name_server, "names": self.names}

    def shown(self) -> list[str]:
        """Name them for people."""
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port, _ in self.targets]


def is_single(word: str) -> bool:
    """Tell whether a capability is for one host and port."""
    return word.startswith(_WORD) and word != f"{_WORD}*"


def why_not_a_host(word: str) -> str:
    """Say why nobody can connect to what a capability names; empty if its host is a name or an address."""
    host, _ = _split(word)
    address = _address(host)
    if address is not None:
        unusable = address.is_unspecified or address.is_multicast or str(address) == _NOT_MET
        if isinstance(address, ipaddress.IPv6Address):
            unusable = unusable or bool(address.ipv4_mapped) or address.is_link_local  # which needs a device beside it
        return "no host has this address" if unusable else ""
    if not _NAME.match(host) or _NUMBER.match(host):
        return "its host is neither a name nor an address"
    return "this machine is meant by its address: 127.0.0.1, or [::1]" if _LOCAL.match(host) else ""


def find_hosts(granted: Iterable[str]) -> Hosts | None:
    """Give the hosts among some capabilities; ``None`` if there is none, or the whole network was granted."""
    words = [word for word in granted if word.startswith("net:")]
    if not words or not all(map(is_single, words)):
        return None
    asked = list(dict.fromkeys(map(_split, words)))
    literal = {str(address) for host, _ in asked if (address := _address(host)) is not None}
    name_server = _free(_NAME_SERVER, literal)
    names: dict[str, str] = {}
    for host, _ in asked:
        if _address(host) is None and host not in names:
            names[host] = _free(_FIRST, {*literal, *names.values(), name_server})
    targets = ((host, port, names.get(host, host)) for host, port in asked)
    return Hosts(tuple(targets), name_server, names)


def _free(first: ipaddress.IPv4Address, taken: Iterable[str]) -> str:
    """Give the first address from this one on that is not taken."""
    while str(first) in taken:
        first += 1
    return str(first)


def _split(word: str) -> tuple[str, int]:
    host, _, port = word.removeprefix(_WORD).rpartition(":")
    address = _address(host)
    return (host.rstrip(".") if address is None else str(address)), int(port)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
