"""The module of `check_transport` over gRPC, on bare HTTP/2. It prints its port, and ends with its stdin."""

import asyncio
import sys

from tests.grpc_transport.raw import RawServer, frame

from amplifier_core.testing import ProbeModule
from amplifier_transport_grpc._message import encode

MODULE = ProbeModule()


async def invoke(call):
    """Answer one invocation; the end of its stream cancels it."""
    await call.headers()
    answering = asyncio.create_task(MODULE.answer("invoke", call.params, lambda text: chunk(call, text)))
    leaving = asyncio.create_task(call.gone.wait())
    await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    answering.cancel()
    reply = await answering
    if reply is None:
        call.peer.transport.abort()
    else:
        await send(call, reply)
        await call.answer_rest()


async def chunk(call, text):
    """Send a chunk where somebody wants it."""
    if call.path.endswith("Stream"):
        await send(call, text)


async def send(call, text):
    await call.data(frame(encode(text.encode())))


async def main():
    server = RawServer(invoke)
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
