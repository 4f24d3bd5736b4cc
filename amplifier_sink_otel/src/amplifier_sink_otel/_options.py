"""The embedder's options: where events go, and what is told of them.

Owns their meaning and their errors. It connects to nothing.
"""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from amplifier_core import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDPOINT = "http://127.0.0.1:4318"
_RESERVED = "accept-encoding|connection|content-.*|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade"
_NAME = re.compile(rf"(?!(?i:{_RESERVED})\Z)[A-Za-z0-9!#$%&'*+.^_`|~-]{{1,256}}\Z")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]{0,16382}[!-~])?)?\Z")

_Text = Annotated[str, Meta(min_length=1, max_length=1024)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a sink was told. What is ``None`` was left out."""

    endpoint: _Text | None = None
    headers: Annotated[dict[str, str], Meta(max_length=100)] | None = None
    ca: str | None = None
    compression: Literal["none", "gzip"] | None = None
    service: _Text | None = None
    resource: Annotated[dict[_Text, _Text | _Number | float | bool], Meta(max_length=100)] = {}
    content: bool = False
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    interval: _Seconds = 1.0
    timeout: _Seconds = 10.0
    required: bool = False
    environment: bool = False

    def __post_init__(self) -> None:
        """Look at what types do not say. Raises ``ValueError``."""
        _check_endpoint(self.endpoint or _ENDPOINT)
        for name, value in (self.headers or {}).items():
            if not _NAME.match(name):
                raise ValueError(f"headers: expected names of HTTP, and none that says how a message is sent: {name!a}")
            if not _VALUE.match(value):
                raise ValueError(f"headers.{name}: expected at most 16384 characters of printable ASCII")
        if self.ca is not None:
            try:
                ssl.create_default_context(cafile=self.ca)
            except (OSError, ValueError) as error:
                raise ValueError(f"ca: expected a PEM file with authorities: {error}") from None

    def __repr__(self) -> str:
        """Show no header: it may be a key."""
        return f"<Options {self.where}>"

    @property
    def where(self) -> str:
        """The collector, for people: without the path, where a key may stand."""
        if self.endpoint is None and self.environment:
            return "the collector of the environment"
        url = urlsplit(self.endpoint or _ENDPOINT)
        return f"{url.scheme}://{url.netloc}"

    def url(self, path: str) -> str | None:
        """Give the URL for a kind of message; ``None``: that is the environment's."""
        if self.endpoint is None and self.environment:
            return None
        return (self.endpoint or _ENDPOINT).rstrip("/") + path


def read_options(given: Mapping[str, Any]) -> Options:
    """Read the options strictly. Raises ``BadRequest`` with the name of the one that does not fit."""
    for name in given:
        if name not in Options.__struct_fields__:
            raise BadRequest(f"sinks: otel: {name!r}: expected one of {', '.join(Options.__struct_fields__)}")
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
    try:
        return msgspec.convert(plain, Options)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at ")
        if problem.startswith("Invalid enum"):
            problem += ", expected none or gzip"  # there is one enum
        place = f"{where.replace('$.', '').replace('`', '')}: " if where else ""
        raise BadRequest(f"sinks: otel: {place}{problem[:1].lower()}{problem[1:]}") from None


def _check_endpoint(text: str) -> None:
    expected = "endpoint: expected http://HOST:PORT or https://HOST, with or without a path, and no user, ? or #"
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise ValueError(expected) from None  # not shown, here and below: a key may stand in it
    plain = text.isascii() and text.isprintable() and not set(" ?#@\\") & set(text)
    if url.scheme not in ("http", "https") or not url.hostname or not plain:
        raise ValueError(expected)
