"""What a server sends, cut into messages by nats-py, with bounds, and one copy of a large message.

Owns those bounds. The names of nats-py's own parser that are used here are used nowhere else.
"""

from __future__ import annotations

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

HEADERS_MAX = 4096
"""Bytes of the headers of a message. Those of a longer one are not kept, and neither is what comes with them."""

_MESSAGE_MAX = 64 << 20  # what a server can be set to
_LINE_MAX = 1 << 20  # a server tells of its cluster in a line
_END = 2  # bytes after a message


class BoundedParser(Parser):
    """The parser of one connection. Raises ``ProtocolError`` for what no server sends."""

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self._skip = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read. Each message that is whole goes to the client."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self.state == AWAITING_MSG_PAYLOAD and len(data) >= (missing := self.needed + _END - len(self.buf)):
            self.buf += data[:missing]
            data = data[missing:]
            await self._deliver()
        await super().parse(data)
        if self.state == AWAITING_MSG_PAYLOAD:
            await self._check_message()
        elif len(self.buf) > _LINE_MAX:
            raise ProtocolError

    async def _deliver(self) -> None:
        with memoryview(self.buf) as message:
            headers, payload = bytes(message[: self.header_needed]), bytes(message[self.header_needed : self.needed])
        await self._process(payload, headers)

    async def _check_message(self) -> None:
        if self.header_needed > HEADERS_MAX:
            self._skip = self.needed + _END - len(self.buf)
            await self._process(b"", bytes(HEADERS_MAX + 1))  # they are refused by their length
        elif self.needed > _MESSAGE_MAX:
            raise ProtocolError

    async def _process(self, payload: bytes, headers: bytes) -> None:
        self.buf = bytearray()
        self.header_needed = 0
        self.state = AWAITING_CONTROL_LINE
        told = self.msg_arg
        await self.nc._process_msg(told["sid"], told["subject"], told["reply"], payload, headers or None)  # noqa: SLF001
