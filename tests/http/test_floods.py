"""What a server sends in masses holds neither the loop nor the memory of the kernel, and the deadline always passes."""

import asyncio
import socket
from contextlib import suppress

import pytest
from tests.gap import apart
from tests.http import floods
from tests.http.raw import describe_remote

from amplifier_core import KernelError
from amplifier_core.hookspecs import Chunks
from amplifier_transport_http import open_transport

GAP = 0.25
"""Seconds of CPU: a busy machine makes gaps of its own, and nothing here waits."""
MESSAGE_BYTES = 32 * 2**20
GROWTH = 3 * MESSAGE_BYTES
SECONDS = 3.0

pytestmark = [
    pytest.mark.newest,
    pytest.mark.usefixtures("peak_of_memory"),
]


async def ask(meters, port, limit, method):
    """Ask the server once, with a deadline; say the result, or the error."""
    connection = open_transport(describe_remote(f"http://127.0.0.1:{port}", limits={"message_bytes": limit}))
    await connection.start((), None)
    chunks = Chunks()
    chunks.discard()
    async with meters:
        try:
            async with asyncio.timeout(SECONDS):
                reply = await connection.request(method, b"{}", chunks)
                return f"a reply of {reply.size} bytes"
        except KernelError as error:
            return str(error)[:1000]
        except TimeoutError:
            return "the deadline passed"
        finally:
            await connection.close()


def flood(answer):
    """Make a server of one connection that answers without a look at the client."""

    def serve(peer):
        peer.recv(65536)
        with suppress(OSError):
            for part in answer():
                peer.sendall(part)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)

    return serve


@pytest.mark.parametrize(
    ("answer", "says", "limit"),
    [
        (floods.blank_lines_in_gzip, "", MESSAGE_BYTES),
        (floods.a_million_chunks_in_gzip, "", MESSAGE_BYTES),
        (floods.a_gigabyte_in_gzip, "more than 33554432 bytes (limits.message_bytes)", MESSAGE_BYTES),
        (floods.empty_members, "more than 65536 bytes of gzip in a row that unpack to nothing", MESSAGE_BYTES),
        (floods.empty_blocks, "more than 65536 bytes of gzip in a row that unpack to nothing", MESSAGE_BYTES),
        (floods.a_name_in_gzip_without_end, "more than 65536 bytes of gzip in a row", MESSAGE_BYTES),
        (floods.members_of_one_byte, "", MESSAGE_BYTES),
        (floods.lines_of_members_of_one_byte, "", MESSAGE_BYTES),
        (floods.members_of_one_byte, "more than 1000 bytes (limits.message_bytes)", 1000),
        (floods.blank_lines, "more than 100000 bytes (limits.message_bytes)", 100_000),
        (floods.blank_lines_after_the_reply, "more than 100000 bytes (limits.message_bytes)", 100_000),
        (floods.chunks_of_one_byte, "", MESSAGE_BYTES),
        (floods.lines_of_chunks_of_one_byte, "", MESSAGE_BYTES),
        (floods.chunks_of_one_byte, "more than 1000 bytes (limits.message_bytes)", 1000),
        (floods.chunks_with_long_extensions, "", MESSAGE_BYTES),
        (floods.a_body_without_end, "", MESSAGE_BYTES),
        (floods.a_body_of_30_megabytes, "", MESSAGE_BYTES),
        (floods.a_line_of_30_megabytes_in_gzip, "", MESSAGE_BYTES),
        (floods.a_description_of_30_megabytes, "a reply of 314572", MESSAGE_BYTES),
        (floods.a_failed_description_of_30_megabytes, "a reply of 314573", MESSAGE_BYTES),
        (floods.a_body_of_millions_of_values, "", MESSAGE_BYTES),
        (floods.an_error_of_30_megabytes, "", MESSAGE_BYTES),
        (floods.continues, "more than 65536 bytes of headers", MESSAGE_BYTES),
        (floods.headers, "more than 100 headers", MESSAGE_BYTES),
        (floods.trailers, "more than 100 headers", MESSAGE_BYTES),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:9]),
)
def test_a_flood_holds_neither_the_loop_nor_memory(in_a_thread, answer, says, limit):
    method = "describe" if "description" in answer.__name__ else "invoke"
    cost = apart(ask, in_a_thread(flood(answer)), limit, method)
    assert says in cost.said
    assert cost.growth < GROWTH
    assert cost.gap_cpu < GAP
