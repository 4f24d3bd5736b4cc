"""The fields of ``transport`` that belong to HTTP: ``url``, ``headers``, ``ca``, ``proxy``, ``http2``.

Owns their meaning and their errors. It opens nothing.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import attrs
import httpx

from amplifier_core.hookspecs import read_file

from ._response import unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from amplifier_core import ModuleDescriptor

_KNOWN = ("type", "url", "headers", "ca", "proxy", "http2")
_URL = "an absolute URL like https://example.com/path"
_HIGHEST_PORT = 65535
_CA_MAX = 4 << 20  # bytes; all public authorities take a quarter of a megabyte
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?\Z")
_RESERVED = "accept-encoding|connection|content-.*|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade"
"""Headers that say how a message is framed or where it goes: a descriptor may not set them."""


@attrs.frozen
class HttpFields:
    """The URL of a server, the headers of each request to it, and how to connect to it."""

    url: httpx.URL
    headers: Mapping[str, str]
    """By their names in lower case."""
    ca: Path | None
    """A PEM file with the only authorities to trust; ``None``: the public ones."""
    proxy: httpx.URL | None
    http2: bool

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where connections lead: the server, and the proxy before it, each as HOST:PORT."""
        return tuple(_endpoint(url) for url in (self.url, self.proxy) if url is not None)

    def trust(self) -> ssl.SSLContext:
        """Load the authorities to trust, which takes 20 ms; the environment has no say. Raises ``Unreachable``."""
        try:
            if self.ca is None:
                return httpx.create_ssl_context(trust_env=False)
            return ssl.create_default_context(cadata=_certificates(self.ca))
        except OSError as error:
            raise unreachable(self.url, f"no certificates to trust in {self.ca}: {error}", error) from error


def _certificates(file: Path) -> str:
    text = read_file(file, _CA_MAX).decode("ascii", "ignore")  # comments may be in any language
    if not text:  # then the public authorities would be trusted
        raise OSError("expected a text file")
    return text


def read_fields(
    descriptor: ModuleDescriptor, known: Sequence[str] = _KNOWN, *, reserved: str = "", query: bool = False
) -> HttpFields:
    """Read the fields strictly; raises ``BadRequest`` with the JSON path.

    For another protocol over HTTP: all the fields that it knows, a pattern of further headers that a descriptor may
    not set, and whether the URL may have a query.
    """
    descriptor.check_known(known)
    url = _url(descriptor, query=query)
    headers = _headers(descriptor, f"{_RESERVED}|{reserved}")
    ca = descriptor.file(".ca", "expected the path of a file of PEM certificates", descriptor.transport.get("ca"))
    return HttpFields(url, headers, ca, _proxy(descriptor), _http2(descriptor))


def _url(descriptor: ModuleDescriptor, *, query: bool) -> httpx.URL:
    text = descriptor.transport.get("url")
    if not isinstance(text, str):
        raise descriptor.misfit(".url", f"expected {_URL}", text)
    try:
        # The scheme in lower case: httpx does not know that 80 is the default port of HTTP://host:80.
        url = httpx.URL(re.sub("^[A-Za-z]+", lambda scheme: scheme[0].lower(), text))
    except httpx.InvalidURL as error:
        why = "" if "@" in text else f": {error}"  # the error may quote a password
        raise descriptor.misfit(".url", f"expected {_URL}{why}") from None
    if url.userinfo:
        raise descriptor.misfit(".url", "expected no user and no password: credentials belong in headers")
    if url.scheme not in ("http", "https") or not _names_host(url) or url.port == 0 or "\\" in text:
        without_secrets = text.partition("?")[0].rpartition("@")[2]
        raise descriptor.misfit(".url", f"expected {_URL}", without_secrets)
    if (url.port or 1) > _HIGHEST_PORT:
        raise descriptor.misfit(".url", f"expected a port from 1 to {_HIGHEST_PORT}, got {url.port}")
    if "#" in text:
        raise descriptor.misfit(".url", "expected no fragment: a server never sees it")
    if "?" in text and not query:
        raise descriptor.misfit(".url", "expected no query: the path of each operation is added to the URL")
    return url


def _names_host(url: httpx.URL) -> bool:
    """Tell whether there is a host that can be resolved; ``a..b`` and labels of 64 characters cannot."""
    try:
        return bool(url.host.encode("idna")) and "%" not in url.host
    except UnicodeError:
        return False


def _endpoint(url: httpx.URL) -> str:
    host = url.raw_host.decode()
    return f"{f'[{host}]' if ':' in host else host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _headers(descriptor: ModuleDescriptor, reserved: str) -> dict[str, str]:
    headers = descriptor.transport.get("headers", {})
    if not isinstance(headers, Mapping):
        shown = type(headers).__name__ if headers else headers  # not what is in it: it may be a secret
        raise descriptor.misfit(".headers", "expected an object of text to text", shown)
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not _NAME.match(name):
            raise descriptor.misfit(".headers", "expected the names of HTTP headers", name)
        path, lower = f".headers.{name}", name.lower()
        if re.fullmatch(reserved, lower):
            raise descriptor.misfit(path, "the transport sets this header itself")
        if lower in found:
            raise descriptor.misfit(path, "the header is there twice: upper and lower case are the same")
        if not isinstance(value, str) or not _VALUE.match(value):  # not shown: it may be a secret
            raise descriptor.misfit(path, "expected printable ASCII text, without space at its ends")
        found[lower] = value
    return found


def _proxy(descriptor: ModuleDescriptor) -> httpx.URL | None:
    text = descriptor.transport.get("proxy")
    if text is None:
        return None
    try:
        url = httpx.URL(text) if isinstance(text, str) else None
    except httpx.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not _names_host(url):  # not shown: it may have a password
        raise descriptor.misfit(".proxy", "expected the URL of a proxy like http://127.0.0.1:3128")
    return url


def _http2(descriptor: ModuleDescriptor) -> bool:
    http2 = descriptor.transport.get("http2", False)
    if not isinstance(http2, bool):
        raise descriptor.misfit(".http2", "expected true or false", http2)
    if http2 and find_spec("h2") is None:
        raise descriptor.misfit(".http2", "h2 is not installed; try: pip install amplifier-transport-http[http2]")
    return http2
