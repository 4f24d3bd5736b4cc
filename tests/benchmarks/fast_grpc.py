"""A gRPC echo that does as little as a server of grpc.aio can, so that a benchmark measures the client.

It prints its port, and ends when its stdin ends. It copies the args into the reply without decoding them.
"""

import asyncio
import sys
from typing import Any

import grpc.aio
import msgspec

_DESCRIPTION = (
    b'{"ok":true,"result":{"name":"echo","version":"0.1.0","kind":"tool","capabilities":[],'
    b'"inputs":{"echo":{}},"outputs":{"echo":{}}}}'
)


class Params(msgspec.Struct):
    args: msgspec.Raw


_decode = msgspec.json.Decoder(Params).decode


def encode(message: bytes) -> bytes:
    """Encode a protobuf message whose field 1 is ``message``, of less than 16 KiB."""
    size = len(message)
    return (b"\x0a%c" % size if size < 128 else b"\x0a%c%c" % (size & 127 | 128, size >> 7)) + message


def decode(data: bytes) -> bytes:
    """Give field 1 of a protobuf message of less than 16 KiB."""
    return data[2 if data[1] < 128 else 3 :]


async def _describe(_request: bytes, _context: object) -> bytes:
    return encode(_DESCRIPTION)


async def _invoke(request: bytes, _context: object) -> bytes:
    return encode(b'{"ok":true,"result":%b}' % _decode(decode(request)).args)


async def _check(_request: bytes, _context: object) -> bytes:
    return b"\x08\x01"


async def _main() -> None:
    server = grpc.aio.server()
    unary = grpc.unary_unary_rpc_method_handler
    module: dict[str, Any] = {"Describe": unary(_describe), "Invoke": unary(_invoke)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("amplifier.v1.Module", module),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": unary(_check)}),
        )
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_main())
