"""An HTTP echo that does as little as a server can, so that a benchmark measures the client.

It prints `listening on http://127.0.0.1:PORT`, and ends when its stdin ends. It copies the args into the reply
without decoding them.
"""

import asyncio
import re
import sys

import msgspec

_READ = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-request-id: *[^\r]+")
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d%b\r\n\r\n%b"
_HEALTH = b'{"status":"ok"}'
_DESCRIPTION = (
    b'{"name":"echo","version":"0.1.0","kind":"tool","capabilities":[],"inputs":{"echo":{}},"outputs":{"echo":{}}}'
)


class Params(msgspec.Struct):
    args: msgspec.Raw


_decode = msgspec.json.Decoder(Params).decode


def answer(path: bytes, body: bytes) -> bytes:
    if path.endswith(b"/invoke"):
        return b'{"ok":true,"result":%b}' % _decode(body).args
    return _HEALTH if path.endswith(b"/health") else _DESCRIPTION


class Echo(asyncio.BufferedProtocol):
    _transport: asyncio.Transport
    _unread = b""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_READ))  # asyncio would map a new one for each read: 14 µs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._unread + bytes(self._buffer[:nbytes])
        while (end := data.find(b"\r\n\r\n") + 4) >= 4:
            length = _LENGTH.search(data, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(data) < whole:
                break
            body = answer(data.split(b" ", 2)[1], data[end:whole])
            request_id = _ID.search(data, 0, end)
            self._transport.write(_REPLY % (len(body), request_id[0] if request_id else b"", body))
            data = data[whole:]
        self._unread = data


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=128)
    host, port = server.sockets[0].getsockname()
    print(f"listening on http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
