"""Where NATS is, whom it trusts and by which credentials it is entered: what a kernel and a worker need to connect.

Owns the files, which are read anew for each connection, in a thread. The environment has no say.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from pathlib import Path
from typing import Any

import attrs
from nats.aio.client import RawCredentials

from amplifier_core.hookspecs import NotJson, Tls, decode, read_file

_SERVER = re.compile(
    r"(?:(?:nats|tls)://)?((?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}))\Z"
)
_HIGHEST_PORT = 65535
_FILE_MAX = 4 << 20  # bytes; all public authorities take a quarter of a megabyte
_CREDENTIALS_MAX = 64 << 10
_JWT, _SEED = "-----BEGIN NATS USER JWT-----", "-----BEGIN USER NKEY SEED-----"
_NKEY = re.compile(r"SU[A-Z2-7]{56}\Z")
_SHAPES = ({"user", "password"}, {"token"})


@attrs.frozen(kw_only=True)
class Place:
    """Servers of one system, and how to enter it. ``tls`` is ``None`` if nothing is encrypted."""

    servers: tuple[str, ...]
    tls: Tls | None = None
    credentials: Path | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Each server as HOST:PORT."""
        return tuple(endpoint_of(server) for server in self.servers)

    async def read(self) -> dict[str, Any]:
        """Read the files. Give the options of nats-py. Raises ``OSError`` or ``ValueError``, with one line."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.tls is not None:
            options["tls"] = _context(self.tls)
            if self.tls.server_name is not None:
                options["tls_hostname"] = self.tls.server_name
        if self.credentials is not None:
            options |= _credentials(self.credentials)
        return options


def endpoint_of(server: str) -> str:
    """Give a server as HOST:PORT. Raises ``ValueError`` for what is none."""
    found = _SERVER.match(server)
    if found is None or not 0 < int(found[2]) <= _HIGHEST_PORT:
        raise ValueError("expected HOST:PORT")
    return found[1]


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is not None:
        context.load_verify_locations(cadata=read_file(tls.ca, _FILE_MAX).decode("ascii"))
    else:
        _trust_the_system(context)
    if tls.cert is not None and tls.key is not None:
        for file in (tls.cert, tls.key):
            read_file(file, _FILE_MAX)  # says which one is missing
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _trust_the_system(context: ssl.SSLContext) -> None:
    """Trust the authorities of the system, and not those that the environment names."""
    if os.name == "nt":  # pragma: no cover - its store is no file
        context.load_default_certs()
        return
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    context.load_verify_locations(file if file.is_file() else None, folder if folder.is_dir() else None)


def _credentials(file: Path) -> dict[str, Any]:
    """Read a file of credentials: that of nsc, the seed of an nkey, or a JSON object with a password or a token."""
    text = read_file(file, _CREDENTIALS_MAX).decode("utf-8").strip()
    if _JWT in text and _SEED in text:
        return {"user_credentials": RawCredentials(text + "\n")}
    if _NKEY.match(text):
        return {"nkeys_seed_str": text}
    return _object(file, text)


def _object(file: Path, text: str) -> dict[str, Any]:
    try:
        fields = decode(text.encode())
    except NotJson:
        fields = None
    if (
        not isinstance(fields, dict)
        or set(fields) not in _SHAPES
        or not all(isinstance(each, str) for each in fields.values())
    ):
        raise ValueError(f'{file}: expected NATS credentials, an nkey, or {{"user", "password"}} or {{"token"}}')
    return fields
