"""What an HTTP response means: the module's reply, or the error that its status stands for (protocol, section 4).

Owns the shapes of the bodies and the table of the statuses. It does no I/O.
"""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple

import httpx

from amplifier_core import KernelError
from amplifier_core.hookspecs import Message, NotJson, decode, decode_message

_CODES = {
    400: "bad_request",
    401: "forbidden",
    403: "forbidden",
    404: "unsupported_op",
    405: "unsupported_op",
    408: "timeout",
    413: "bad_request",
    422: "bad_request",
    429: "unreachable",
    501: "unsupported_op",
    502: "unreachable",
    503: "unreachable",
    504: "timeout",
}

_SUCCESS = range(200, 300)

_REDIRECTS = frozenset((301, 302, 307, 308))
"""Those that may leave a POST what it is. 303 asks for a GET, which is no request of the protocol."""

_DESCRIPTION = frozenset(("name", "version", "kind", "capabilities", "inputs", "outputs"))

_EXCERPT = 200  # characters of a body that an error shows


class Answer(NamedTuple):
    """One response, with its whole body."""

    url: httpx.URL
    status: int
    headers: httpx.Headers
    body: bytes

    def reply(self, method: str) -> Message:
        """Give the reply that the body is, whatever the status; else raise the error that the status stands for."""
        try:
            message = decode_message(self.body) if method == "invoke" else self._bare(method)
        except NotJson as error:
            raise self.error(_not_json(self.body, error)) from None
        if not message.is_reply():
            raise self.error("none of the three shapes of section 2")
        return message

    def redirect(self) -> httpx.URL | None:
        """Give where the request shall go instead, if that is at the same origin."""
        location = self.headers.get("location")
        if location is None or self.status not in _REDIRECTS:
            return None
        try:
            target = self.url.join(location)
        except httpx.InvalidURL:
            return None
        return target if _origin(target) == _origin(self.url) else None

    def error(self, what: str) -> KernelError:
        """Make the error that the status stands for; ``what`` the body was goes on from "answered with"."""
        details: dict[str, Any] = {"http_status": self.status, "url": str(self.url)}
        message = f"{self.url} answered HTTP {self.status} with {what}"
        location = self.headers.get("location")
        if location is not None:
            details["location"] = location
            message += f"; the redirect to {location!r} is not followed"
        if excerpt := _excerpt(self.body):
            details["body"] = excerpt
        return KernelError.from_body(_CODES.get(self.status, "internal"), message, details)

    def _bare(self, method: str) -> Message:
        """Read the answer to ``health`` or ``describe``, which comes bare; an error looks as it does everywhere."""
        value = decode(self.body)
        if isinstance(value, dict) and value.get("ok") is False:
            return decode_message(self.body)
        if self.status in _SUCCESS or _is_bare(method, value):
            return Message(ok=True, result=value, size=len(self.body))
        raise self.error(f"no answer to {method}")


def _is_bare(method: str, value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("status") == "ok" if method == "health" else value.keys() >= _DESCRIPTION


def _not_json(body: bytes, error: NotJson) -> str:
    start = body.lstrip()[:1]
    return "an empty body" if not start else "HTML, not JSON" if start == b"<" else f"no JSON of the protocol: {error}"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _excerpt(body: bytes) -> str:
    """Give the beginning of a body, if it is text."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(body[: 4 * _EXCERPT])[:_EXCERPT]
    except UnicodeDecodeError:
        return ""
