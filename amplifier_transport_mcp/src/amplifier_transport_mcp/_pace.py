"""How fast a server may send what nobody waits for: its own requests, notifications, noise, comments.

Owns the account. Who holds the server back is the transport's business.
"""

from __future__ import annotations

import time

_A_SECOND = 5000  # cost that a second makes good
_AT_ONCE = 10_000  # cost before anything is held back
_BYTES = 1024  # that cost as much as one small message
REQUEST = 20
"""What a request costs, which has to be answered; a notification costs one."""


class Pace:
    """An account of what a server has sent unasked."""

    def __init__(self) -> None:
        self._left = float(_AT_ONCE)
        self._since = time.monotonic()

    def spend(self, size: int, cost: int = 1) -> float:
        """Note a message of so many bytes, and give the seconds for which nothing more should be read."""
        now = time.monotonic()
        self._left = min(_AT_ONCE, self._left + (now - self._since) * _A_SECOND)
        self._since = now
        self._left -= cost + size // _BYTES
        return max(0.0, -self._left / _A_SECOND)
