"""The module `words` as a gRPC server in Python, made with the kit.

words.py [CERT KEY CA]: with the files of a certificate it speaks TLS, and asks clients for theirs. It prints its port.
"""

import asyncio
import sys
from pathlib import Path

import grpc

from amplifier_module import Context, Module

module = Module("words", version="1.0.0")


@module.op
def count(text: str) -> dict[str, int]:
    return {"words": len(text.split())}


@module.op
async def tell(text: str, context: Context) -> dict[str, int]:
    words = text.split()
    for word in words:
        context.chunk({"word": word})
        await context.drain()
    return {"words": len(words)}


@module.op
async def wait() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", file=sys.stderr)


async def main(*files: str) -> None:
    server = await module.grpc()
    if files:
        cert, key, ca = (Path(file).read_bytes() for file in files)
        trust = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", trust)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    print(port, flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


asyncio.run(main(*sys.argv[1:]))
