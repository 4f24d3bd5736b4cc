"""The keys of a descriptor's ``transport`` that are MCP's own, strictly read.

Owns their meaning and the one line that says what does not fit. ``command``, ``cwd`` and ``env`` mean what they mean to
the stdio transport, which reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from amplifier_transport_stdio import StdioFields
from amplifier_transport_stdio import read_fields as read_stdio_fields

if TYPE_CHECKING:
    from pathlib import Path

    from amplifier_core import BadRequest, ModuleDescriptor

_LOCAL = ("command", "cwd", "env")
_REMOTE = ("url", "headers", "ca")
_INPUTS = ("roots", "sampling", "elicitation")
_HIGHEST_PORT = 65535
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z|[0-9A-Fa-f:.]+\Z")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?\Z")
_OWN = re.compile(
    "accept|accept-encoding|connection|content-.*|cookie|expect|host|keep-alive|last-event-id|mcp-.*|te|trailer"
    r"|transfer-encoding|upgrade\Z",
    re.IGNORECASE,
)  # they say how a message is framed or what it is, which is not for a descriptor to decide


@attrs.frozen
class HttpFields:
    """Where a server is, what every request to it carries, and whose certificates it may show."""

    url: str
    headers: Mapping[str, str]
    ca: Path | None
    """A PEM file with the only authorities to trust; ``None``: the public ones."""


@attrs.frozen
class Handler:
    """An operation of a mounted module that answers what a server asks for."""

    path: str
    op: str


@attrs.frozen
class Inputs:
    """What a server may ask for, and who answers. What is not here is not offered to it."""

    roots: tuple[str, ...] | None
    """Absolute paths; ``None``: the server is told of no roots at all."""
    handlers: Mapping[str, Handler]
    """By the method that the server calls."""


def read_fields(descriptor: ModuleDescriptor) -> tuple[StdioFields | HttpFields, Inputs]:
    """Read the fields, or raise ``BadRequest`` that names the first one that does not fit."""
    transport = descriptor.transport
    if ("command" in transport) == ("url" in transport):
        raise descriptor.misfit("", "expected either a command (a server here) or a url (a server elsewhere)")
    known = ("type", *(_LOCAL if "command" in transport else _REMOTE), *_INPUTS)
    for key in transport:
        if key not in known:
            raise descriptor.misfit(f".{key}", f"expected one of {', '.join(known)}")
    inputs = Inputs(_roots(descriptor), _handlers(descriptor))
    if "url" in transport:
        return HttpFields(_url(descriptor), _headers(descriptor), _ca(descriptor)), inputs
    return read_stdio_fields(descriptor, known), inputs


def _url(descriptor: ModuleDescriptor) -> str:
    text = descriptor.transport["url"]
    expected = "an absolute URL like https://example.com/mcp"
    if not isinstance(text, str) or not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        raise _unexpected(descriptor, ".url", expected, text)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise descriptor.misfit(".url", f"expected {expected}: {error}") from None
    if "@" in url.netloc:
        raise descriptor.misfit(".url", "expected no user and no password: credentials are for headers")
    if url.scheme not in ("http", "https") or not _HOST.match(url.hostname or "") or port == 0:
        raise _unexpected(descriptor, ".url", expected, text)
    if "#" in text:
        raise descriptor.misfit(".url", "expected no fragment: no server ever sees it")
    return text


def _headers(descriptor: ModuleDescriptor) -> dict[str, str]:
    headers = descriptor.transport.get("headers", {})
    if not isinstance(headers, Mapping):
        raise _unexpected(descriptor, ".headers", "an object of text to text", headers)
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if not _NAME.match(name):
            raise _unexpected(descriptor, ".headers", "the names of HTTP headers", name)
        path = f".headers.{name}"
        if _OWN.fullmatch(name):
            raise descriptor.misfit(path, "the transport sets this header itself")
        if name.lower() in seen:
            raise descriptor.misfit(path, "the header stands there twice: case makes no difference")
        if not isinstance(value, str) or not _VALUE.match(value):  # and what it is may be a secret
            raise descriptor.misfit(path, "expected printable ASCII text, without space at its ends")
        seen[name.lower()] = value
    return seen


def _ca(descriptor: ModuleDescriptor) -> Path | None:
    path: str | None = descriptor.transport.get("ca")
    if path is None:
        return None
    if not _is_path(path):
        raise _unexpected(descriptor, ".ca", "the path of a file of PEM certificates", path)
    return descriptor.base / path


def _roots(descriptor: ModuleDescriptor) -> tuple[str, ...] | None:
    roots = descriptor.transport.get("roots")
    if roots is None:
        return None
    if not isinstance(roots, list | tuple) or not all(map(_is_path, roots)):
        raise _unexpected(descriptor, ".roots", "a list of paths", roots)
    return tuple(str((descriptor.base / path).resolve()) for path in roots)


def _handlers(descriptor: ModuleDescriptor) -> dict[str, Handler]:
    found = {}
    for key, method in (("sampling", "sampling/createMessage"), ("elicitation", "elicitation/create")):
        value = descriptor.transport.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping) or value.keys() != {"path", "op"} or not all(map(_is_path, value.values())):
            raise _unexpected(descriptor, f".{key}", 'an object like {"path": "/mnt/providers/x", "op": "y"}', value)
        found[method] = Handler(value["path"], value["op"])
    return found


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _unexpected(descriptor: ModuleDescriptor, path: str, expected: str, value: Any) -> BadRequest:
    got = "nothing" if value is None else repr(value)[:80]
    return descriptor.misfit(path, f"expected {expected}, got {got}")
