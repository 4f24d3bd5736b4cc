"""The fields of ``transport`` that belong to NATS: ``servers``, ``subject``, ``tls``, ``credentials``.

Owns their meaning and their errors. It opens no file and no connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from amplifier_core.hookspecs import read_tls

from ._place import Place, endpoint_of

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor

_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")
_SUBJECT_MAX = 200
_SERVERS_MAX = 64


@attrs.frozen(kw_only=True)
class NatsFields:
    """Where workers are found: a place, and the subject that they serve there."""

    place: Place
    subject: str


def is_subject(text: object) -> bool:
    """Tell whether workers may serve a subject of that name: tokens of letters, digits, ``_`` and ``-``, and dots."""
    return isinstance(text, str) and len(text) <= _SUBJECT_MAX and bool(_SUBJECT.match(text))


def read_fields(descriptor: ModuleDescriptor) -> NatsFields:
    """Read the fields strictly. Raises ``BadRequest`` with the JSON path."""
    descriptor.check_known(("type", "servers", "subject", "tls", "credentials"))
    subject = descriptor.transport.get("subject")
    if not isinstance(subject, str) or not is_subject(subject):
        raise descriptor.misfit(".subject", "expected words of letters, digits, _ and -, with dots between", subject)
    named = descriptor.transport.get("credentials")
    credentials = descriptor.file(".credentials", "expected the path of a file", named)
    place = Place(servers=_servers(descriptor), tls=read_tls(descriptor), credentials=credentials)
    return NatsFields(place=place, subject=subject)


def _servers(descriptor: ModuleDescriptor) -> tuple[str, ...]:
    servers = descriptor.transport.get("servers")
    servers = [servers] if isinstance(servers, str) else servers
    if not isinstance(servers, Sequence) or not 0 < len(servers) <= _SERVERS_MAX:
        raise descriptor.misfit(".servers", f"expected HOST:PORT, or a list of at most {_SERVERS_MAX} of them", servers)
    for number, server in enumerate(servers):
        try:
            endpoint_of(server if isinstance(server, str) else "")
        except ValueError as error:  # not shown: somebody may have put a password there
            raise descriptor.misfit(f".servers[{number}]", f"{error}; a password belongs in credentials") from None
    return tuple(servers)
