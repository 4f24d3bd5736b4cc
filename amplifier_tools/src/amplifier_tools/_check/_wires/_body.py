"""The body of one response: the reply that it has, and what is wrong with it (protocol, section 4).

Owns that judgement. It does not send requests, and does not look into what a reply says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import LineBuffer, LineTooLongError, NotJson, decode
from amplifier_transport_http import Response

from ._lines import BOM

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["Bodies"]

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_SUCCESS = range(200, 300)
_REPLY = ("ok", "result", "error", "pending")
Read = tuple[dict[str, Any] | None, bytes]


class _TooLarge(Exception):
    """The body is larger than one message may be."""


class Bodies:
    """Reads the bodies of responses. ``broke(rule, problem, line=…)`` hears what is wrong with one."""

    def __init__(self, limit: int, broke: Callable[..., None]) -> None:
        self._limit = limit
        self._broke = broke

    async def read(self, response: httpx.Response, method: str) -> Read:
        """Give the reply as it would stand on a line of STDIO, or ``None``, and the bytes that have it."""
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media_type == _NDJSON:
                return await self._read_stream(response, method)
            return self._read_whole(response, method, media_type, await self._all(response))
        except (_TooLarge, LineTooLongError):
            self._broke("MSG-07", f"a message of more than {self._limit} bytes")
            return None, b""

    async def _all(self, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            if (size := size + len(part)) > self._limit:
                raise _TooLarge
        return b"".join(parts)

    def _read_whole(self, response: httpx.Response, method: str, media_type: str, body: bytes) -> Read:
        text = self._without_mark(body)
        try:
            value = decode(text, self._limit)
        except NotJson as error:
            lines = text.strip().splitlines()
            if len(lines) > 1 and (reply := self._lines_of_another_type(lines, media_type)):
                return reply, lines[-1]
            return self._by_status(response, body, str(error))
        if media_type != _JSON:
            self._broke("HTTP-06", f"the content type is {media_type or 'missing'!r}", line=body)
        if method == "invoke":
            return self._read_reply(response, value, body)
        return self._read_bare(value, method, body), body

    def _read_reply(self, response: httpx.Response, value: object, body: bytes) -> Read:
        odd = not isinstance(value, dict) or not value.keys() & {"chunk", *_REPLY}
        if not isinstance(value, dict) or (odd and response.status_code not in _SUCCESS):
            return self._by_status(response, body, "none of the three shapes of section 2")
        if value.get("chunk") is not None and value.keys() & set(_REPLY):
            self._broke("MSG-03", "the message has a chunk and a reply", line=body)
        if value.get("ok") is True and response.status_code not in _SUCCESS:
            self._broke("HTTP-07", f"the status is {response.status_code}", line=body)
        return value, body

    def _read_bare(self, value: object, method: str, body: bytes) -> dict[str, Any]:
        if isinstance(value, dict) and value.get("ok") is False:
            return value
        if isinstance(value, dict) and value.get("ok") is True and "result" in value:
            self._broke("HTTP-02", f"{method} answers an ok and a result around its body", line=body)
            return value
        return {"ok": True, "result": value}

    async def _read_stream(self, response: httpx.Response, method: str) -> Read:
        lines, final, final_line, after = LineBuffer(self._limit), None, b"", b""
        async for part in response.aiter_bytes():
            for line in lines.feed(part):
                after = after or (line if final is not None else b"")
                final, final_line = self._take(line, final, final_line)
        if rest := lines.rest().strip():
            after = after or (rest if final is not None else b"")
            final, final_line = self._take(rest, final, final_line)
        if after:
            self._broke("HTTP-04", "a line after the reply", line=after)
        if not final_line:
            self._broke("HTTP-03", "the stream ended without a reply")
        elif method != "invoke" and final is not None:
            self._broke("HTTP-02", f"{method} answers a stream", line=final_line)
            final = self._read_bare(final, method, final_line)
        return final, final_line

    def _take(self, line: bytes, final: dict[str, Any] | None, final_line: bytes) -> Read:
        """Take a line of a stream: give the reply so far, and the line that has it."""
        if final_line:
            return final, final_line
        try:
            value = decode(self._without_mark(line), self._limit)
        except NotJson as error:
            self._broke("HTTP-01", f"a line of the stream is no JSON: {error}", line=line)
            return None, line
        if not isinstance(value, dict):
            self._broke("HTTP-01", "a line of the stream is no message", line=line)
            return None, line
        if "chunk" in value and not value.keys() & set(_REPLY):
            return None, b""
        if value.get("chunk") is not None:
            self._broke("MSG-03", "the message has a chunk and a reply", line=line)
        return value, line

    def _lines_of_another_type(self, lines: list[bytes], media_type: str) -> dict[str, Any] | None:
        """Read chunks and a reply that come with the content type of something else."""
        try:
            values = [decode(line, self._limit) for line in lines]
        except NotJson:
            return None
        if not all(isinstance(value, dict) for value in values) or "chunk" not in values[0]:
            return None
        self._broke("HTTP-05", f"chunks come as {media_type or 'no type at all'}", line=lines[0])
        reply: dict[str, Any] = values[-1]
        return reply

    def _without_mark(self, body: bytes) -> bytes:
        if not body.startswith(BOM):
            return body
        self._broke("HTTP-01", "the body begins with a byte order mark", line=body)
        return body[len(BOM) :]

    def _by_status(self, response: httpx.Response, body: bytes, why: str) -> Read:
        """Give the error that the status stands for. A success without a reply stands for none."""
        if response.status_code in _SUCCESS:
            self._broke("HTTP-01", f"HTTP {response.status_code} with no reply: {why}", line=body)
            return None, body
        error = Response(response.url, response.status_code, response.headers, body).error(why)
        return {"ok": False, "error": {"code": error.code, "message": error.message}}, body
