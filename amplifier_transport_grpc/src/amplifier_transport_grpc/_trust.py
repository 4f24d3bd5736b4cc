"""The certificates of a connection: whom it trusts, and by which it is known.

Owns the reading of the files, which takes a thread. The environment has no say.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from amplifier_core.hookspecs import read_file

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Tls

_FILE_MAX = 4 << 20  # bytes; all public authorities take a quarter of a megabyte


def read_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Read what a connection needs. Raises ``OSError``."""
    key, cert = (None if path is None else _read(path) for path in (tls.key, tls.cert))
    return grpc.ssl_channel_credentials(system_authorities() if tls.ca is None else _read(tls.ca), key, cert)


def system_authorities() -> bytes:
    """Give the authorities that the system trusts, as PEM. Raises ``OSError`` if there are none."""
    if os.name == "nt":  # pragma: no cover - its store is no file
        context = ssl.create_default_context()
        return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))).encode()
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    files = [file] if file.is_file() else sorted(folder.glob("????????.[0-9]"))  # as OpenSSL names them
    if not files:
        raise OSError("the system has none of authorities; name some in tls.ca")
    return b"\n".join(map(_read, files))


def _read(file: Path) -> bytes:
    data = read_file(file, _FILE_MAX)
    if b"-----BEGIN " not in data:
        raise OSError(f"{file}: expected PEM")
    return data
