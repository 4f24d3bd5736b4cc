"""What a server sends, in pieces of any size: the same messages as nats-py gives, and a bound on what is kept."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser
from tests.gap import apart
from tests.nats_transport.test_places import strange
from tests.nats_transport.test_words import until

from amplifier_transport_nats._client import connect
from amplifier_transport_nats._parser import HEADERS_MAX, BoundedParser
from amplifier_transport_nats._place import Place
from amplifier_transport_nats._wire import WORD

__all__ = ["strange"]  # a fixture


class Heard:
    """Stands for the client of a parser: it notes what it is given."""

    def __init__(self):
        self.messages = []

    async def _process_msg(self, sid, subject, reply, payload, headers):
        self.messages.append((sid, bytes(subject), bytes(reply), payload, headers))

    async def _process_ping(self):
        self.messages.append("ping")

    async def _process_pong(self):
        self.messages.append("pong")


@st.composite
def messages(draw):
    """Draw a message as a server sends it."""
    payload = draw(st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 2\r\nab\r\n", b"x" * 5000]))
    reply = draw(st.sampled_from(["", "_INBOX.a.b "]))
    if draw(st.booleans()):
        headers = b"NATS/1.0\r\nx: " + draw(st.sampled_from([b"1", b"y" * 4000])) + b"\r\n\r\n"
        sizes = f"{len(headers)} {len(headers) + len(payload)}"
        return f"HMSG tools.m 7 {reply}{sizes}\r\n".encode() + headers + payload + b"\r\n"
    return f"MSG tools.m 7 {reply}{len(payload)}\r\n".encode() + payload + b"\r\n"


def pieces(data, cuts):
    ends = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def parsed(parser_class, read):
    async def parse():
        heard = Heard()
        parser = parser_class(heard)
        for data in read:
            await parser.parse(data)
        return heard.messages

    return asyncio.run(parse())


WORDS = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n"])


@given(st.lists(messages() | WORDS, max_size=6), st.lists(st.integers(min_value=0), max_size=12))
def test_however_it_is_cut_the_messages_are_those_of_nats_py(sent, cuts):
    read = pieces(b"".join(sent), cuts)
    assert parsed(BoundedParser, read) == parsed(Parser, read)


@given(st.integers(HEADERS_MAX + 1, 9000), st.integers(0, 9000), st.lists(st.integers(min_value=0), max_size=12))
def test_headers_that_are_too_long_are_told_and_what_follows_is_heard(size, more, cuts):
    long = f"HMSG a 7 {size} {size + more}\r\n".encode() + b"h" * size + b"p" * more + b"\r\n"
    (_, _, _, payload, headers), *rest = parsed(BoundedParser, pieces(long * 2 + b"MSG b 7 2\r\nhi\r\n", cuts))
    assert len(headers) > HEADERS_MAX
    assert payload in (b"", b"p" * more)
    assert [each[1] for each in rest] == [b"a", b"b"]
    assert rest[-1][3] == b"hi"


async def listening(strange, sent):
    """Connect to a server that answers a subscription so. Give the client, and what it hears."""
    address = await strange(ping=b"PONG\r\n", sub=sent)
    heard, lost = [], []
    client = await connect(Place(servers=(address,)), "me", lost.append, lambda _: None)

    async def note(message):
        heard.append(message)

    await client.subscribe("a", cb=note)
    await client._flush_pending(force_flush=True)
    return client, heard, lost


async def hear_long_headers(meters):
    """Give what a client hears of a message with headers of 30 MB, and of the one that follows."""

    async def serve(reader, writer):
        writer.write(b'INFO {"headers":true,"max_payload":1048576}\r\n')
        async for line in reader:
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                writer.write(b"HMSG a 1 30000000 30000002\r\n")
                for _ in range(300):
                    writer.write(b"h" * 100_000)
                    await writer.drain()
                writer.write(b"hi\r\nMSG a 1 2\r\nho\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        place = Place(servers=(f"127.0.0.1:{server.sockets[0].getsockname()[1]}",))
        client = await connect(place, "me", lambda _: None, lambda _: None)
        heard: asyncio.Queue = asyncio.Queue()
        async with meters:
            await client.subscribe("a", cb=heard.put)
            said = [await heard.get(), await heard.get()]
        await client.leave()
    return [[each.headers, each.data.decode()] for each in said]


def test_headers_of_thirty_megabytes_are_not_kept(peak_of_memory):
    cost = apart(hear_long_headers)
    assert cost.said == [[{WORD: "headers of more than 4096 bytes"}, ""], [None, "ho"]]
    assert cost.growth < 8_000_000
    assert cost.gap < 0.25


@pytest.mark.parametrize("sent", [b"MSG a 1 99999999999\r\n", b"INFO {" + b" " * 1_100_000], ids=["message", "line"])
async def test_what_no_server_sends_ends_the_connection(strange, sent):
    client, heard, lost = await listening(strange, sent)
    async with asyncio.timeout(8):  # after ten seconds it would be lost for want of a PONG
        await until(lambda: lost == [client])
    assert not heard
    await client.leave()
