"""The keys of a descriptor's ``transport`` that are HTTP's own, strictly read.

Owns their meaning and the one line that says what does not fit. It opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Self

import httpx

if TYPE_CHECKING:
    from pathlib import Path

    from amplifier_core import BadRequest, ModuleDescriptor

_KEYS = ("type", "url", "headers", "ca", "proxy", "http2")
_HIGHEST_PORT = 65535
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?\Z")
_OWN = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)  # they say how a message is framed or where it goes, which is not for a descriptor to decide


class Fields(NamedTuple):
    """Where a module is, what every request to it carries, and whose certificates it may show."""

    url: httpx.URL
    """Without a slash at its end."""
    headers: tuple[tuple[str, str], ...]
    ca: Path | None
    """A PEM file with the only authorities to trust; ``None``: the public ones."""
    proxy: httpx.URL | None
    http2: bool

    @classmethod
    def read(cls, descriptor: ModuleDescriptor) -> Self:
        """Read the fields, or raise ``BadRequest`` that names the first one that does not fit.

        A key that is not known is refused: a misspelt ``headers`` would leave out a credential without a word.
        """
        for key in descriptor.transport:
            if key not in _KEYS:
                raise descriptor.misfit(f".{key}", f"not a key of the http transport, which has {', '.join(_KEYS)}")
        return cls(_url(descriptor), _headers(descriptor), _ca(descriptor), _proxy(descriptor), _http2(descriptor))


def _url(descriptor: ModuleDescriptor) -> httpx.URL:
    text = descriptor.transport.get("url")
    expected = "an absolute URL like http://127.0.0.1:8080/wordcount"
    if not isinstance(text, str):
        raise _unexpected(descriptor, ".url", expected, text)
    try:
        # The scheme in lower case: httpx does not know that the 80 of HTTP://host:80 goes without saying.
        url = httpx.URL(re.sub("^[A-Za-z]+", lambda scheme: scheme[0].lower(), text))
    except httpx.InvalidURL as error:
        raise descriptor.misfit(".url", f"expected {expected}: {error}") from None
    if url.userinfo:
        raise descriptor.misfit(".url", "expected no user and no password: credentials are for headers")
    if url.scheme not in ("http", "https") or not _names_host(url) or url.port == 0 or "\\" in text:
        raise _unexpected(descriptor, ".url", expected, text)
    if (url.port or 1) > _HIGHEST_PORT:
        raise descriptor.misfit(".url", f"expected a port from 1 to {_HIGHEST_PORT}, got {url.port}")
    if "?" in text or "#" in text:
        raise descriptor.misfit(".url", "expected no query and no fragment: /health, /describe and /invoke follow")
    return url.copy_with(path=url.path.rstrip("/"))


def _names_host(url: httpx.URL) -> bool:
    """Tell whether there is a host that a resolver can be asked for; ``a..b`` and labels of 64 characters are none."""
    try:
        return bool(url.host.encode("idna")) and "%" not in url.host
    except UnicodeError:
        return False


def _headers(descriptor: ModuleDescriptor) -> tuple[tuple[str, str], ...]:
    headers = descriptor.transport.get("headers", {})
    if not isinstance(headers, Mapping):
        raise _unexpected(descriptor, ".headers", "an object of text to text", headers)
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.match(name):
            raise _unexpected(descriptor, ".headers", "the names of HTTP headers", name)
        path = f".headers.{name}"
        if name.lower() in _OWN:
            raise descriptor.misfit(path, "the transport sets this header itself")
        if name.lower() in seen:
            raise descriptor.misfit(path, "the header stands there twice: case makes no difference")
        if not isinstance(value, str) or not _VALUE.match(value):  # and what it is may be a secret
            raise descriptor.misfit(path, "expected printable ASCII text, without space at its ends")
        seen.add(name.lower())
    return tuple(headers.items())


def _ca(descriptor: ModuleDescriptor) -> Path | None:
    path = descriptor.transport.get("ca")
    if path is None:
        return None
    if not isinstance(path, str) or not path or "\0" in path:
        raise _unexpected(descriptor, ".ca", "the path of a file of PEM certificates", path)
    return descriptor.base / path


def _proxy(descriptor: ModuleDescriptor) -> httpx.URL | None:
    text = descriptor.transport.get("proxy")
    if text is None:
        return None
    try:
        url = httpx.URL(text) if isinstance(text, str) else None
    except httpx.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not _names_host(url):  # and it may hold a password
        raise descriptor.misfit(".proxy", "expected the URL of a proxy like http://127.0.0.1:3128")
    return url


def _http2(descriptor: ModuleDescriptor) -> bool:
    wanted = descriptor.transport.get("http2", False)
    if not isinstance(wanted, bool):
        raise _unexpected(descriptor, ".http2", "true or false", wanted)
    if wanted and find_spec("h2") is None:
        raise descriptor.misfit(".http2", "h2 is not installed; try: pip install amplifier-transport-http[http2]")
    return wanted


def _unexpected(descriptor: ModuleDescriptor, path: str, expected: str, value: object) -> BadRequest:
    got = "nothing" if value is None else repr(value)[:80]
    return descriptor.misfit(path, f"expected {expected}, got {got}")
