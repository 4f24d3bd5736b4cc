"""The field ``tls`` of a transport: what encrypts its connection, whom it trusts, and by what it is known.

Owns its meaning and its errors. It opens no file: each library wants the certificates in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from amplifier_core._protocol.descriptor import ModuleDescriptor

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z")
_PEM = "expected the path of a PEM file"


@attrs.frozen(kw_only=True)
class Tls:
    """What encrypts a connection. ``ca`` has the only authorities to trust; ``None``: those that the system trusts."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    """The name that the server's certificate has to have, if it is not the host's."""


def read_tls(descriptor: ModuleDescriptor) -> Tls | None:
    """Read ``transport.tls`` strictly: an object with ``ca``, ``cert``, ``key``, ``server_name``, or ``false``.

    ``None`` is ``false``: nothing is encrypted. Without the field everything is. Raises ``BadRequest`` with the JSON
    path.
    """
    fields = descriptor.transport.get("tls", {})
    if fields is False:
        return None
    if not isinstance(fields, Mapping):
        raise descriptor.misfit(".tls", "expected an object, or false for a connection that is not encrypted", fields)
    descriptor.check_known(("ca", "cert", "key", "server_name"), ".tls", fields)
    ca, cert, key = (descriptor.file(f".tls.{name}", _PEM, fields.get(name)) for name in ("ca", "cert", "key"))
    if (cert is None) is not (key is None):
        raise descriptor.misfit(".tls", "expected cert and key, or neither")
    name = fields.get("server_name")
    if name is not None and not (isinstance(name, str) and _HOST.match(name)):
        raise descriptor.misfit(".tls.server_name", "expected the name of a host", name)
    return Tls(ca=ca, cert=cert, key=key, server_name=name)
