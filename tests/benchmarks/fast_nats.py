"""A worker of NATS that does as little as one on nats-py can, so that a benchmark measures the kernel's end.

It starts a server too, prints its address, and ends when its stdin ends. It copies the args into the reply.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

SUBJECT = "echo"
_DESCRIPTION = (
    b'{"ok":true,"result":{"status":"ok","name":"echo","version":"0.1.0","kind":"tool","capabilities":[],'
    b'"inputs":{"echo":{}},"outputs":{"echo":{}}}}'
)


class Params(msgspec.Struct):
    args: msgspec.Raw


_decode = msgspec.json.Decoder(Params).decode


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or "nats-server"
    options = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
    process = subprocess.Popen([program, *options], stderr=subprocess.DEVNULL)
    ports = folder / f"nats-server_{process.pid}.ports"
    while not (ports.exists() and ports.read_text()):
        time.sleep(0.01)
    return process, json.loads(ports.read_text())["nats"][0].removeprefix("nats://")


async def _serve(address: str) -> None:
    client = Client()
    await client.connect(address)

    async def answer(msg: Msg) -> None:
        text = b'{"ok":true,"result":%b}' % _decode(msg.data).args if msg.subject.endswith("invoke") else _DESCRIPTION
        await client.publish(msg.reply, text)

    await client.subscribe(f"{SUBJECT}.*", "q", cb=answer)
    await client.flush()
    print(address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await client.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        server, where = _start(Path(name))
        asyncio.run(_serve(where))
        server.terminate()
        server.wait()
