"""HTTPS against real servers with certificates of an authority of the test's own."""

import asyncio
import json
import os

import pytest
from tests.http.raw import as_module, describe_remote, echo, respond

from amplifier_core import Unreachable, load_descriptor
from amplifier_transport_http import open_transport

PARAMS = b'{"args":{"n":1}}'


async def test_a_server_of_an_authority_that_the_descriptor_names_is_trusted(serve, connect, authority):
    ca, tls = authority
    server = await serve(echo, tls=tls)
    connection = await connect(server, transport={"ca": str(ca)})
    for _ in range(3):
        assert (await connection.request("invoke", PARAMS)).result == {"n": 1}
    assert server.connections == 1


async def test_the_authority_may_stand_beside_the_descriptor_file(serve, session, authority, tmp_path):
    ca, tls = authority
    server = await serve(as_module(echo), tls=tls)
    fields = {"name": "raw", "kind": "tool", "capabilities": []}
    transport = {"type": "http", "url": server.url, "ca": ca.name}
    (tmp_path / "raw.json").write_text(json.dumps({**fields, "transport": transport}))
    await session.mount("/mnt/tools", load_descriptor(tmp_path / "raw.json"))
    assert await session.invoke("/mnt/tools/raw", "echo", {"n": 1}) == {"n": 1}


async def test_large_messages_pass_over_tls(serve, connect, authority):
    ca, tls = authority
    connection = await connect(await serve(echo, tls=tls), transport={"ca": str(ca)})
    assert (await connection.request("invoke", b'{"args":"%s"}' % (b"x" * 3_000_000))).result == "x" * 3_000_000


async def test_a_server_of_an_unknown_authority_is_unreachable_and_says_why(serve, connect, authority, monkeypatch):
    ca, tls = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))  # the environment is not asked
    connection = await connect(await serve(echo, tls=tls))
    with pytest.raises(Unreachable) as raised:
        await connection.request("invoke", PARAMS)
    assert "certificate verify failed" in raised.value.message
    assert any(cause.startswith("SSLCertVerificationError: ") for cause in raised.value.details["causes"])


async def test_plain_http_to_a_server_that_speaks_tls_is_unreachable(serve, connect, authority):
    server = await serve(echo, tls=authority[1])
    connection = await connect(f"http://127.0.0.1:{server.port}")
    with pytest.raises(Unreachable):
        await connection.request("invoke", PARAMS)


async def test_comments_in_the_file_may_be_in_any_language(serve, connect, authority, tmp_path):
    ca, tls = authority
    (tmp_path / "commented.pem").write_text(f"# Főtanúsítvány\n{ca.read_text()}", "utf-8")
    connection = await connect(await serve(echo, tls=tls), transport={"ca": str(tmp_path / "commented.pem")})
    assert (await connection.request("invoke", PARAMS)).result == {"n": 1}


def pipe(path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes")
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_text("no certificate"),
        lambda path: path.write_text(""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_text("x" * ((4 << 20) + 1)),
        lambda path: path.mkdir(),
        pipe,
    ],
    ids=["none", "other text", "empty", "no text", "large", "folder", "pipe"],
)
async def test_a_file_without_certificates_fails_the_start(tmp_path, make):
    make(tmp_path / "ca.pem")
    connection = open_transport(describe_remote("https://127.0.0.1:1", transport={"ca": str(tmp_path / "ca.pem")}))
    with pytest.raises(Unreachable) as raised:
        await connection.start((), None)
    assert f"no certificates to trust in {tmp_path / 'ca.pem'}: " in raised.value.message
    await connection.close()


async def test_a_second_response_over_tls_never_answers_the_next_call(serve, connect, authority):
    async def answer(request):
        number = len(server.requests)
        await request.send(respond({"ok": True, "result": number}) + respond({"ok": True, "result": "surplus"}))

    ca, tls = authority
    server = await serve(answer, tls=tls)
    connection = await connect(server, transport={"ca": str(ca)})
    for number in range(1, 4):
        assert (await connection.request("invoke", b"{}")).result == number
    assert server.connections == 3


async def test_closing_over_tls_waits_for_no_farewell(serve, connect, authority):
    ca, tls = authority
    asked = asyncio.Event()

    async def answer(request):
        asked.set()
        await request.gone()

    server = await serve(answer, tls=tls)
    connection = await connect(server, transport={"ca": str(ca)})
    waiting = asyncio.create_task(connection.request("invoke", b"{}"))
    await asked.wait()
    async with asyncio.timeout(10):
        await connection.close()
        with pytest.raises(Unreachable, match="the connections are closed"):
            await waiting
        await server.requests[0].ended.wait()
