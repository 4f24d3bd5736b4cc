"""A small Internet in a network namespace: `unshare --net --mount python world.py FOLDER`. It ends with its stdin.

Every address answers on the same ports, so that whoever gets anywhere gets an answer which says where it came from. The
public ones are not this machine's own. FOLDER has `hosts`, with the names, and may have the key of a server of TLS.
"""

import asyncio
import ssl
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

OWN, OWN6 = "10.99.0.1", "fd99::1"
SETUP = f"""
ip link set lo up
ip address add {OWN}/32 dev lo
ip address add {OWN6}/128 dev lo
ip address add 93.184.216.99/32 dev lo
ip address add fd00:ec2::254/128 dev lo
for net in 93.184.216.0/24 10.0.0.0/24 169.254.169.254 100.64.0.1 168.63.129.16 9.9.9.9; do
    ip route add local $net dev lo src {OWN}
done
for net in 2606:4700::/64 64:ff9b::/96 2002:7f00:1::/64; do ip -6 route add local $net dev lo src {OWN6}; done
mount --bind hosts /etc/hosts
mount --bind nsswitch.conf /etc/nsswitch.conf
"""


async def greet(reader, writer):
    """Say where this is, and send back what comes."""
    host, port = writer.get_extra_info("sockname")[:2]
    writer.write(f"hello from {host} {port}\n".encode())
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        pass
    finally:
        writer.close()


async def swallow(reader, writer):
    """Read everything, and say how much it was."""
    count = 0
    while data := await reader.read(1 << 16):
        count += len(data)
    writer.write(str(count).encode())
    writer.close()


async def stall(reader, writer):
    """Read nothing until the other side has gone."""
    writer.write(b"hello, and nothing more\n")
    await asyncio.sleep(3600)


async def shut(reader, writer):
    """End each connection with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def resolve(reader, writer):
    """Answer questions of DNS that come as a stream."""
    try:
        size = int.from_bytes(await reader.readexactly(2))
        reply = answer(await reader.readexactly(size))
        writer.write(len(reply).to_bytes(2) + reply)
    except EOFError:
        pass
    finally:
        writer.close()


def answer(query):
    """Answer any question with an address."""
    end = query.index(b"\0", 12) + 5
    record = struct.pack("!3HIH4s", 0xC00C, 1, 1, 60, 4, bytes((93, 184, 216, 35)))
    return query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + query[12:end] + record


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram."""

    def __init__(self, make):
        self.make = make

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(self.make(data), addr)


async def main(folder):
    subprocess.run(["sh", "-e", "-c", SETUP], check=True, cwd=folder)
    loop = asyncio.get_running_loop()
    for port, serve in {80: greet, 443: greet, 53: resolve, 8000: swallow, 8001: stall, 8002: shut}.items():
        await asyncio.start_server(serve, ["0.0.0.0", "::"], port, backlog=512)
    for port, make in {53: answer, 5000: lambda data: b"hello"}.items():
        await loop.create_datagram_endpoint(partial(Datagrams, make), ("0.0.0.0", port))
    if Path(folder, "server.pem").exists():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(Path(folder, "server.pem"))
        await asyncio.start_server(greet, "0.0.0.0", 8443, ssl=context)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
