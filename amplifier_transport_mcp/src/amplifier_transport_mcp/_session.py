"""The session that a server of MCP may begin with a response.

Owns its id, and how it ends. Each request of the SDK names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from amplifier_core import Unreachable

if TYPE_CHECKING:
    import httpx

SESSION_ID = "mcp-session-id"


class SessionEnded(Unreachable):
    """The server does not know the session: the request was not carried out."""


class HttpSession:
    """One session. ``ended`` is set when the server does not know it any more."""

    def __init__(self) -> None:
        self.ended = False
        self._id = ""
        self._headers: dict[str, str] = {}

    def note(self, request: httpx2.Request, response: httpx.Response) -> None:
        """Note the session that a response begins."""
        session = response.headers.get(SESSION_ID, "")
        if session and session != self._id:
            self._id = session
            kept = {name: value for name, value in request.headers.items() if not name.startswith("content-")}
            self._headers = {**kept, SESSION_ID: session}

    def end_request(self, url: str) -> httpx2.Request | None:
        """Make the request that ends the session, unless there is none or the server has ended it."""
        return httpx2.Request("DELETE", url, headers=self._headers) if self._id and not self.ended else None
