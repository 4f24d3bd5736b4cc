"""The fields of ``transport`` that belong to gRPC: ``target``, ``tls``, ``metadata``.

Owns their meaning and their errors. It opens no file and no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from amplifier_core import ModuleDescriptor

_DNS = re.compile(r"dns:///((?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}))\Z")
_UNIX = re.compile(r"unix:/[^\0?#]{1,106}\Z")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z")
_NAME = re.compile(r"[0-9a-z_.-]{1,256}\Z")
_RESERVED = re.compile(r"(grpc-.*|.*-bin|te|content-type|user-agent|host|connection|traceparent)\Z")
_VALUE = re.compile(r"[ -~]{0,16384}\Z")
_ENTRIES_MAX = 100
_HIGHEST_PORT = 65535


@attrs.frozen(kw_only=True)
class Tls:
    """What encrypts a connection. ``ca`` has the only authorities to trust; ``None``: those that the system trusts."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    server_name: str | None
    """The name that the server's certificate has to have, if it is not the host's."""


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
    return GrpcFields(target=target, endpoints=endpoints, tls=_tls(descriptor), metadata=_metadata(descriptor))


def _target(descriptor: ModuleDescriptor) -> tuple[str, tuple[str, ...]]:
    text = descriptor.transport.get("target")
    if isinstance(text, str) and (match := _DNS.match(text)) and 0 < int(match[2]) <= _HIGHEST_PORT:
        return text, (match[1],)
    if not isinstance(text, str) or not _UNIX.match(text):
        raise descriptor.misfit(".target", "expected dns:///HOST:PORT or unix:/PATH", text)
    if descriptor.caller is not None:
        raise descriptor.misfit(".target", "expected dns:///HOST:PORT: a module names no socket of this host")
    return text, ()


def _tls(descriptor: ModuleDescriptor) -> Tls | None:
    fields = descriptor.transport.get("tls", {})
    if fields is False:
        return None
    if not isinstance(fields, Mapping):
        raise descriptor.misfit(".tls", "expected an object, or false for a connection that is not encrypted", fields)
    descriptor.check_known(("ca", "cert", "key", "server_name"), ".tls", fields)
    ca, cert, key = (_file(descriptor, f".tls.{name}", fields.get(name)) for name in ("ca", "cert", "key"))
    if (cert is None) is not (key is None):
        raise descriptor.misfit(".tls", "expected cert and key, or neither")
    name = fields.get("server_name")
    if name is not None and not (isinstance(name, str) and _HOST.match(name)):
        raise descriptor.misfit(".tls.server_name", "expected the name of a host", name)
    return Tls(ca=ca, cert=cert, key=key, server_name=name)


def _file(descriptor: ModuleDescriptor, path: str, value: Any) -> Path | None:
    if value is None:
        return None
    if descriptor.caller is not None:  # an error would tell whether the file is there
        raise descriptor.misfit(path, "expected none: a module wrote the descriptor, and names no file of this host")
    if not isinstance(value, str) or not value or "\0" in value:
        raise descriptor.misfit(path, "expected the path of a PEM file", value)
    return descriptor.base / value


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
