"""The framing of section 3: a request is one JSON object on one line.

Owns the lines that are written, and the ids in lines that are broken. Lines that are read are cut by the core's
``LineBuffer``.
"""

from __future__ import annotations

import re

_NEAR = 64 * 1024  # bytes
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?("|\Z)|[{}\[\]]', re.DOTALL)
_TOKEN_BACKWARDS = re.compile(rb'"(?:[^"]++|"(?=\\(?:\\\\)*+(?!\\)))*+(?:"|\Z)|[{}\[\]]')
_VALUE = re.compile(rb'\s*+:\s*+("[^"\\]{1,64}+"|\d{1,18}+(?=\s*+[,}\]]))')
_LONE = re.compile(rb'\s*+"id"\s*+:\s*+("[^"\\]{1,64}+"|\d{1,18}+)\s*+,?\s*+')
_COMMA = re.compile(rb"\s*+,")
_OUTERMOST = ([b"{"], [b"[", b"{"])  # an object, or one in a list around it
CANCEL = b'{"method":"cancel","params":{"id":"%b"}}\n'


def frame(number: int, method: str, params: bytes) -> bytes:
    """Write one request line. Its id is ``r`` and the number."""
    return b'{"id":"r%d","method":"%b","params":%b}\n' % (number, method.encode(), params)


def find_ids(line: bytes, *, alone: bool = False) -> list[str]:
    """Find the ids of the requests that a malformed line answers, so that these can fail at once, and no others.

    An id counts in an outermost object, and not in what that holds: rows of a result have ids of their own. An object
    with a ``method`` answers nothing. ``alone``: a single request waits, so that its id on a line of its own counts
    too, as in JSON that is spread over lines. Of a long line only 64 KiB at both ends are looked at.
    """
    if alone and (lone := _LONE.fullmatch(line, 0, _NEAR)):
        return [_text(lone[1])]
    found, done = _from_start(line[:_NEAR])
    if not found and not (done and len(line) <= _NEAR):
        found = _from_end(line[-_NEAR:].rstrip())
    return list(dict.fromkeys(map(_text, found)))


def _from_start(text: bytes) -> tuple[list[bytes], bool]:
    """Find ids from the first bracket on, and tell whether a look from the end would be misled."""
    opened: list[bytes] = []
    found: list[bytes] = []
    in_string = False
    for match in _TOKEN.finditer(text):
        token, in_string = match[0], match[1] == b""
        if token in (b"{", b"["):
            opened.append(token)
        elif token in (b"}", b"]"):
            if not opened:  # it was opened on another line
                return [], False
            opened.pop()
            if not opened and _COMMA.match(text, match.end()):  # a row of what was opened on another line
                return [], False
        elif token == b'"method"' and opened in _OUTERMOST:
            return [], True
        elif token == b'"id"' and opened in _OUTERMOST and (value := _VALUE.match(text, match.end())):
            found.append(value[1])
    return found, bool(opened) and not in_string  # the last bracket closes a row, if the line is cut after it


def _from_end(text: bytes) -> list[bytes]:
    """Find the id in the object that the last bracket closes: the beginning of the line may be broken."""
    if not text.endswith(b"}"):
        return []
    backwards = text[::-1]
    depth = 0
    for match in _TOKEN_BACKWARDS.finditer(backwards):
        token = match[0]
        if token in (b"}", b"]"):
            depth += 1
        elif token in (b"{", b"["):
            depth -= 1
            if not depth:
                break
        elif depth == 1 and token == b'"di"' and (value := _VALUE.match(text, len(text) - match.start())):
            return [value[1]]
    return []


def _text(value: bytes) -> str:
    return value.strip(b'"').decode(errors="replace")
