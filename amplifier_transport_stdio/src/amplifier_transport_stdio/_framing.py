"""The framing of section 3: a request is one JSON object on one line.

Owns the lines that are written, and the ids. Lines that are read are cut by the core's ``LineBuffer``.
"""

from __future__ import annotations

import re

_ID = re.compile(rb'"id"\s*:\s*"(r\d+)"')
_NEAR = 64 * 1024  # bytes
CANCEL = b'{"method":"cancel","params":{"id":"%b"}}\n'


def frame(number: int, method: str, params: bytes) -> bytes:
    """Write one request line. Its id is ``r`` and the number."""
    return b'{"id":"r%d","method":"%b","params":%b}\n' % (number, method.encode(), params)


def id_in(line: bytes) -> str | None:
    """Find the id near the start or the end of a malformed line, so that its request can fail at once."""
    found = _ID.search(line, 0, _NEAR) or _ID.search(line, max(0, len(line) - _NEAR))
    return found[1].decode() if found else None
