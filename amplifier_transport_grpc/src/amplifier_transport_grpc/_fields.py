"""The fields of ``transport`` that belong to gRPC: ``target``, ``tls``, ``metadata``.

Owns their meaning and their errors. It opens no file and no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from amplifier_core.hookspecs import read_tls

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Tls

_DNS = re.compile(r"dns:///((?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}))\Z")
_UNIX = re.compile(r"unix:/[^\0?#]{1,106}\Z")
_NAME = re.compile(r"[0-9a-z_.-]{1,256}\Z")
_RESERVED = re.compile(r"(grpc-.*|.*-bin|te|content-type|user-agent|host|connection|traceparent)\Z")
_VALUE = re.compile(r"[ -~]{0,16384}\Z")
_ENTRIES_MAX, _HIGHEST_PORT = 100, 65535


@attrs.frozen(kw_only=True)
class GrpcFields:
    """Where a server is, and how to call it. ``tls`` is ``None`` if nothing is encrypted."""

    target: str
    endpoints: tuple[str, ...]
    tls: Tls | None
    metadata: tuple[tuple[str, str], ...] = attrs.field(repr=False)


def read_fields(descriptor: ModuleDescriptor) -> GrpcFields:
    """Read the fields strictly. Raises ``BadRequest`` with the JSON path."""
    descriptor.check_known(("type", "target", "tls", "metadata"))
    target, endpoints = _target(descriptor)
    return GrpcFields(target=target, endpoints=endpoints, tls=read_tls(descriptor), metadata=_metadata(descriptor))


def _target(descriptor: ModuleDescriptor) -> tuple[str, tuple[str, ...]]:
    text = descriptor.transport.get("target")
    if isinstance(text, str) and (match := _DNS.match(text)) and 0 < int(match[2]) <= _HIGHEST_PORT:
        return text, (match[1],)
    if not isinstance(text, str) or not _UNIX.match(text):
        raise descriptor.misfit(".target", "expected dns:///HOST:PORT or unix:/PATH", text)
    if descriptor.caller is not None:
        raise descriptor.misfit(".target", "expected dns:///HOST:PORT: a module names no socket of this host")
    return text, ()


def _metadata(descriptor: ModuleDescriptor) -> tuple[tuple[str, str], ...]:
    metadata = descriptor.transport.get("metadata", {})
    if not isinstance(metadata, Mapping) or len(metadata) > _ENTRIES_MAX:  # not shown: it may be a secret
        raise descriptor.misfit(".metadata", f"expected an object of at most {_ENTRIES_MAX} texts")
    for name, value in metadata.items():
        if not _NAME.match(name) or _RESERVED.match(name):
            raise descriptor.misfit(".metadata", "expected names in lower case, neither gRPC's nor with -bin", name)
        if not isinstance(value, str) or not _VALUE.match(value):
            raise descriptor.misfit(f".metadata.{name}", "expected printable ASCII text of at most 16384 characters")
    return tuple(metadata.items())
