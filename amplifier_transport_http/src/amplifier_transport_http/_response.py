"""The kernel's errors for HTTP responses that are no reply, and for requests without a response (protocol, section 4).

Owns the table of statuses, and redirects. It does not know what a reply looks like.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from amplifier_core import KernelError, Unreachable
from amplifier_core.hookspecs import causes

if TYPE_CHECKING:
    from amplifier_core.hookspecs import NotJson

    from ._pool import Headers

_CODES = {
    **dict.fromkeys((400, 413, 422), "bad_request"),
    **dict.fromkeys((401, 403), "forbidden"),
    **dict.fromkeys((404, 405, 501), "unsupported_op"),
    **dict.fromkeys((408, 504), "timeout"),
    **dict.fromkeys((429, 502, 503), "unreachable"),
}

SUCCESS = range(200, 300)

_REDIRECTS = frozenset((301, 302, 307, 308))
"""Those that may repeat a POST. 303 asks for a GET, which the protocol does not have."""

_EXCERPT = 200
"""Characters of a body, or of a URL elsewhere, that an error shows."""

_REASON = 1000
"""Characters of a reason that an error shows: a proxy may send long ones."""

_LOCATION_MAX = 4096
"""Characters of a redirect's URL that is followed."""

_USERINFO = re.compile(r"//[^/?#]*@")


class Response(NamedTuple):
    """One response, with its whole body. ``url`` is where the request went."""

    url: httpx.URL
    status: int
    headers: httpx.Headers | Headers
    body: bytes
    fault: KernelError | None = None
    """What was wrong with the body, if it could not be read."""

    def redirect(self) -> httpx.URL | None:
        """Give the URL to send the request to instead, if there is one and it has the same origin."""
        location = self.headers.get("location")
        if location is None or self.status not in _REDIRECTS or len(location) > _LOCATION_MAX:
            return None
        try:
            target = self.url.join(location)
        except httpx.InvalidURL:
            return None
        return target if _origin(target) == _origin(self.url) and not target.userinfo else None

    def error(self, what: str) -> KernelError:
        """Make the error that the status stands for; ``what`` continues "answered HTTP 500 with"."""
        details: dict[str, Any] = {"http_status": self.status, "url": str(self.url)}
        message = f"{self.url} answered HTTP {self.status} with {what}"
        location = self.headers.get("location")
        if location is not None:
            location = _USERINFO.sub("//", location)[:_EXCERPT]
            details["location"] = location
            message += f"; the redirect to {location!r} is not followed"
        if excerpt := self._excerpt():
            details["body"] = excerpt
        return KernelError.from_body(_CODES.get(self.status, "internal"), message, details)

    def not_json(self, error: NotJson) -> KernelError:
        """Make the error that the status stands for, with a body that is not the expected JSON."""
        start = self.body.lstrip()[:1]
        what = {b"": "an empty body", b"<": "HTML, not JSON"}.get(start, f"invalid JSON: {error}")
        if self.status not in SUCCESS and start.isalpha() and (said := " ".join(self._excerpt().split())):
            what = f"text, not JSON: {said}"  # it may say more than its status
        return self.error(what)

    def _excerpt(self) -> str:
        """Give the beginning of the body, if it is text."""
        try:
            return codecs.getincrementaldecoder("utf-8")().decode(self.body[: 4 * _EXCERPT])[:_EXCERPT]
        except UnicodeDecodeError:
            return ""


def unreachable(url: httpx.URL, why: str, error: Exception | None = None) -> Unreachable:
    """Make the error of a request that got no response, or only a part of one."""
    chain = [cause[:_REASON] for cause in causes(error)]
    details = {"url": str(url), **({"causes": chain} if chain else {})}
    return Unreachable(f"{url}: {why[:_REASON]}", details=details)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
