"""How connections are kept and lost: what breaks hurts its own call alone, and no reply goes to another one."""

import asyncio
import socket
import threading
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest
from tests.http.raw import describe_remote, echo, respond

from amplifier_core import Internal, Unreachable
from amplifier_transport_http import _http11, open_transport
from amplifier_transport_http._pool import Pool

PARAMS = b'{"args":{"n":%d}}'


def reply(number):
    return respond({"ok": True, "result": number})


async def outcomes(requests) -> list[Any]:
    """Wait for some requests at once, and give each one's reply or error."""
    return await asyncio.gather(*requests, return_exceptions=True)


async def test_a_connection_is_kept_for_the_next_request(serve, connect):
    server = await serve(echo)
    connection = await connect(server)
    for n in range(10):
        assert (await connection.request("invoke", PARAMS % n)).result == {"n": n}
    assert server.connections == 1


async def test_no_cookie_is_kept(serve, connect):
    async def answer(request):
        await request.send(respond({"ok": True, "result": 1}, headers=["set-cookie: session=1; path=/"]))

    server = await serve(answer)
    connection = await connect(server)
    for _ in range(2):
        await connection.request("invoke", b"{}")
    assert "cookie" not in server.requests[1].headers


async def test_64_requests_at_once_share_nothing_and_none_waits(serve, connect):
    together = asyncio.Barrier(64)

    async def answer(request):
        await together.wait()
        await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    for _ in range(2):
        replies = await asyncio.gather(*(connection.request("invoke", PARAMS % n) for n in range(64)))
        assert [message.result["n"] for message in replies] == list(range(64))
    assert server.connections == 64


async def test_after_many_at_once_one_connection_does_the_work_and_the_others_may_grow_old(serve, connect):
    together = asyncio.Barrier(4)

    async def answer(request):
        if len(server.requests) <= 4:
            await together.wait()
        await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    await asyncio.gather(*(connection.request("invoke", PARAMS % n) for n in range(4)))
    for n in range(4):
        await connection.request("invoke", PARAMS % n)
    assert len({request.writer for request in server.requests[4:]}) == 1


async def test_replies_come_in_any_order(serve, connect):
    asked = [asyncio.Event() for _ in range(8)]

    async def answer(request):
        n = request.params["args"]["n"]
        if n + 1 < len(asked):
            await asked[n + 1].wait()
        await echo(request)
        asked[n].set()

    order: list[int] = []

    async def ask(n):
        assert (await connection.request("invoke", PARAMS % n)).result == {"n": n}
        order.append(n)

    connection = await connect(await serve(answer))
    await asyncio.gather(*(ask(n) for n in range(8)))
    assert order == list(reversed(range(8)))


@pytest.mark.parametrize("size", [65_535, 1_000_000, 8_000_000])
async def test_large_messages_pass_both_ways(serve, connect, size):
    connection = await connect(await serve(echo))
    params = b'{"args":"%s"}' % (b"x" * size)
    for _ in range(2):
        assert (await connection.request("invoke", params)).result == "x" * size


@pytest.mark.parametrize("piece", [1, 7])
async def test_a_reply_may_come_a_byte_at_a_time(serve, connect, piece):
    async def answer(request):
        data = respond({"ok": True, "result": "äöü"})
        for start in range(0, len(data), piece):
            await request.send(data[start : start + piece])

    connection = await connect(await serve(answer))
    assert (await connection.request("invoke", b"{}")).result == "äöü"


# A response that no request asked for.


async def test_a_second_response_in_the_same_bytes_never_answers_the_next_call(serve, connect):
    async def answer(request):
        number = len(server.requests)
        await request.send(reply(number) + reply("surplus"))

    server = await serve(answer)
    connection = await connect(server)
    for number in range(1, 5):
        assert (await connection.request("invoke", b"{}")).result == number
    assert server.connections == 4


@pytest.mark.parametrize("head", [b"", b"x-request-id: 0\r\n", b"x-request-id: %b\r\n"])
async def test_a_second_response_sent_however_late_never_answers_the_next_call(serve, connect, head):
    async def answer(request):
        number = len(server.requests)
        if number == 2:  # the response to the first request, once more
            status, _, rest = reply("late").partition(b"\r\n")
            told = head.replace(b"%b", server.requests[0].headers["x-request-id"].encode())
            request.writer.write(b"%b\r\n%b%b" % (status, told, rest))
        await request.send(reply(number))

    server = await serve(answer)
    connection = await connect(server)
    assert (await connection.request("invoke", b"{}")).result == 1
    with pytest.raises(Unreachable, match="HTTP 200 without the x-request-id of the request"):
        await connection.request("invoke", b"{}")
    assert (await connection.request("invoke", b"{}")).result == 3
    assert server.connections == 2


async def test_a_server_that_does_not_repeat_the_id_of_a_request_gets_a_connection_for_each(serve, connect):
    async def answer(request):
        request.repeats_id = False
        await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    for n in range(3):
        assert (await connection.request("invoke", PARAMS % n)).result == {"n": n}
    assert server.connections == 3
    async with asyncio.timeout(5):
        for request in server.requests:
            await request.ended.wait()


async def test_a_response_with_two_ids_is_bound_to_no_request(serve, connect):
    async def answer(request):
        await request.send(respond({"ok": True, "result": 1}, headers=["X-Request-ID: another"]))

    server = await serve(answer)
    connection = await connect(server)
    for _ in range(2):
        assert (await connection.request("invoke", b"{}")).result == 1
    assert server.connections == 2


async def test_each_request_has_an_id_of_its_own(serve, connect):
    server = await serve(echo)
    connection = await connect(server)
    for n in range(10):
        await connection.request("invoke", PARAMS % n)
    assert len({request.headers["x-request-id"] for request in server.requests}) == 10


async def test_a_pool_whose_content_is_bound_already_asks_for_no_id_and_keeps_its_connections(serve):
    server = await serve(echo)
    pool = Pool(httpx.URL(server.url), None)
    async with httpx.AsyncClient(transport=pool, trust_env=False) as client:
        for n in range(2):
            await client.post(f"{server.url}/invoke", content=PARAMS % n)
    assert server.connections == 1
    assert "x-request-id" not in server.requests[0].headers


@pytest.mark.parametrize("surplus", [reply("surplus"), b"\r\n", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_whatever_arrives_on_an_idle_connection_ends_it(serve, connect, surplus):
    idle = asyncio.Event()

    async def answer(request):
        await request.send(reply(len(server.requests)))
        if len(server.requests) == 1:
            await idle.wait()
            await request.send(surplus)
            await request.gone()
            idle.clear()

    server = await serve(answer)
    connection = await connect(server)
    assert (await connection.request("invoke", b"{}")).result == 1
    idle.set()
    async with asyncio.timeout(5):
        await server.requests[0].ended.wait()
    assert (await connection.request("invoke", b"{}")).result == 2
    assert server.connections == 2


def read_to_the_end(peer):
    while peer.recv(65536):
        pass


def read_request(peer):
    data = b""
    while not data.endswith(b"\r\n\r\n{}"):
        data += peer.recv(65536)


@pytest.mark.parametrize("last", [b"", reply("surplus")])
async def test_what_happens_to_an_idle_connection_while_the_loop_is_busy_is_seen_in_time(in_a_thread, connect, last):
    answered, done = threading.Event(), threading.Event()

    def first(peer):
        read_request(peer)
        peer.sendall(reply(1))
        answered.wait()
        if last:
            peer.sendall(last)
            done.set()
            with suppress(ConnectionError):
                assert peer.recv(1) == b""
        else:
            peer.shutdown(socket.SHUT_RDWR)
            done.set()

    def second(peer):
        read_request(peer)
        peer.sendall(reply(2))

    connection = await connect(f"http://127.0.0.1:{in_a_thread(first, second)}")
    assert (await connection.request("invoke", b"{}")).result == 1
    answered.set()
    done.wait()  # the loop has no turn until here
    assert (await connection.request("invoke", b"{}")).result == 2


# Connections that end.


async def test_connections_that_were_idle_for_long_are_not_used_and_do_not_pile_up(serve, connect, monkeypatch):
    together = asyncio.Barrier(8)

    async def answer(request):
        if len(server.requests) <= 8:
            await together.wait()
        await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    await asyncio.gather(*(connection.request("invoke", PARAMS % n) for n in range(8)))
    monkeypatch.setattr(_http11, "_IDLE_SECONDS", -1.0)
    assert (await connection.request("invoke", PARAMS % 8)).result == {"n": 8}
    assert server.connections == 9
    async with asyncio.timeout(5):
        for request in server.requests:
            await request.ended.wait()


async def test_old_connections_are_closed_when_a_newer_one_comes_back(serve, connect, monkeypatch):
    asked, go = asyncio.Event(), asyncio.Event()

    async def answer(request):
        if request.params["args"]["n"] == 0:
            asked.set()
            await go.wait()
        await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    slow = asyncio.create_task(connection.request("invoke", PARAMS % 0))
    await asked.wait()
    await connection.request("invoke", PARAMS % 1)
    monkeypatch.setattr(_http11, "_IDLE_SECONDS", -1.0)
    go.set()
    await slow
    async with asyncio.timeout(5):
        await server.requests[1].ended.wait()


async def test_an_answer_before_the_request_was_read_is_taken_and_its_connection_is_not_kept(in_a_thread, connect):
    taken = threading.Event()

    def first(peer):
        peer.recv(1)
        peer.sendall(respond({"ok": False, "error": {"code": "too_much", "message": "no"}}, 413))
        taken.wait(10)

    def second(peer):
        read_request(peer)
        peer.sendall(reply(2))

    connection = await connect(f"http://127.0.0.1:{in_a_thread(first, second)}")
    message = await connection.request("invoke", b'"' + b"x" * 30_000_000 + b'"')
    assert message.error.code == "too_much"
    taken.set()
    assert (await connection.request("invoke", b"{}")).result == 2


async def test_a_cancelled_request_closes_its_connection_and_no_other(serve, connect):
    asked = asyncio.Event()

    async def answer(request):
        if request.params["args"]["n"] == 1:
            asked.set()
            await request.gone()
        else:
            await echo(request)

    server = await serve(answer)
    connection = await connect(server)
    waiting = asyncio.create_task(connection.request("invoke", PARAMS % 1))
    await asked.wait()
    await connection.request("invoke", PARAMS % 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await server.requests[0].ended.wait()
    assert (await connection.request("invoke", PARAMS % 3)).result == {"n": 3}
    assert server.connections == 2


async def test_a_request_cancelled_in_the_middle_of_a_body_closes_its_connection(serve, connect):
    async def answer(request):
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
        await request.gone()

    server = await serve(answer)
    connection = await connect(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.request("invoke", b"{}")
    async with asyncio.timeout(5):
        await server.requests[0].ended.wait()


# Connections that do not come about.


async def test_a_server_that_closes_each_connection_at_once_is_unreachable(in_a_thread, connect):
    connection = await connect(f"http://127.0.0.1:{in_a_thread(lambda _: None)}")
    with pytest.raises(Unreachable):
        await connection.request("invoke", b"{}")


async def test_a_cancelled_connect_leaves_nothing(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # TLS waits for what never comes
        connection = await connect(f"https://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.request("invoke", b"{}")
        peer, _ = silent.accept()
        with closing(peer):
            peer.settimeout(5)
            await asyncio.to_thread(read_to_the_end, peer)


# httpx itself, over our connections.


async def test_the_pool_is_an_httpx_transport_like_any_other(serve):
    server = await serve(echo)
    pool = Pool(httpx.URL(server.url), None)
    async with httpx.AsyncClient(transport=pool, trust_env=False) as client:
        for n in range(2):
            response = await client.post(f"{server.url}/invoke", content=PARAMS % n)
            assert response.json() == {"ok": True, "result": {"n": n}}
    assert server.connections == 1


async def test_the_end_of_a_body_stays_its_end(serve):
    server = await serve(echo)
    pool = Pool(httpx.URL(server.url), None)
    response = await pool.handle_async_request(httpx.Request("POST", server.url, content=PARAMS % 1))
    assert isinstance(response.stream, httpx.AsyncByteStream)
    assert len([part async for part in response.stream]) == 1
    assert [part async for part in response.stream] == []
    await pool.aclose()


async def test_a_body_of_unknown_length_is_sent_with_its_length(serve):
    async def parts():
        yield b'{"args":'
        yield b'{"n":1}}'

    server = await serve(echo)
    pool = Pool(httpx.URL(server.url), None)
    async with httpx.AsyncClient(transport=pool, trust_env=False) as client:
        response = await client.post(f"{server.url}/invoke", content=parts())
    assert response.json() == {"ok": True, "result": {"n": 1}}
    assert "transfer-encoding" not in server.requests[0].headers


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
async def test_a_header_cannot_begin_another_one(serve, end):
    server = await serve(echo)
    pool = Pool(httpx.URL(server.url), None)
    request = httpx.Request("POST", server.url, headers={"x": f"a{end}y: b"}, content=PARAMS % 1)
    with pytest.raises(httpx.LocalProtocolError, match="a header has the end of a line in it"):
        await pool.handle_async_request(request)
    await pool.aclose()
    assert not server.requests


# The end.


async def test_closing_fails_requests_in_flight_at_once_and_closes_every_socket(serve, connect):
    asked = asyncio.Barrier(5)

    async def answer(request):
        await asked.wait()
        await request.gone()

    server = await serve(answer)
    connection = await connect(server)
    waiting = [asyncio.create_task(connection.request("invoke", PARAMS % n)) for n in range(4)]
    await asked.wait()
    async with asyncio.timeout(10):
        await connection.close()
        replies = await outcomes(waiting)
        for request in server.requests:
            await request.ended.wait()
    assert [type(one) for one in replies] == [Unreachable] * 4
    assert replies[0].message == f"{server.url}: the connections are closed"


async def test_closing_ends_connects_too(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = await connect(f"https://127.0.0.1:{silent.getsockname()[1]}")
        waiting = [asyncio.create_task(connection.request("invoke", b"{}")) for _ in range(3)]
        peers = [(await asyncio.to_thread(silent.accept))[0] for _ in waiting]
        async with asyncio.timeout(10):
            await asyncio.gather(connection.close(), connection.close())
            replies = await outcomes(waiting)
        for peer in peers:
            peer.close()
    assert [str(one).rpartition(": ")[2] for one in replies] == ["the connections are closed"] * 3
    assert {type(one) for one in replies} == {Unreachable}


async def test_closing_is_idempotent_and_final(serve, connect):
    connection = await connect(await serve(echo))
    assert (await connection.request("invoke", PARAMS % 1)).result == {"n": 1}
    await connection.close()
    await connection.close()
    with pytest.raises(Unreachable, match="the connections are closed"):
        await connection.request("invoke", PARAMS % 2)


async def test_a_connection_that_was_never_started_can_be_closed_and_not_used():
    connection = open_transport(describe_remote("http://127.0.0.1:1"))
    with pytest.raises(Internal, match="a request before the start"):
        await connection.request("health", b"{}")
    await connection.close()
