"""Where servers are, and are not; whom they trust, and who is trusted."""

import asyncio
import json
import socket
from types import SimpleNamespace

import nkeys
import pytest
import trustme
from nats.errors import FlushTimeoutError
from tests.nats_transport.objects import Echo
from tests.nats_transport.servers import descriptor
from tests.nats_transport.test_words import until

from amplifier_core import Forbidden, KernelError, Unreachable
from amplifier_core.hookspecs import Host, Tls
from amplifier_transport_nats._client import connect as connect_to
from amplifier_transport_nats._place import Place

PARAMS = b'{"op":"echo","args":{"n":1}}'
ACCOUNTS = """
accounts {
  A { users = [{user: a, password: secret-a}] }
  B { users = [{user: b, password: secret-b}] }
}
"""


@pytest.fixture
def credentials(tmp_path):
    def write(text):
        file = tmp_path / f"credentials-{len(list(tmp_path.iterdir()))}"
        file.write_text(text if isinstance(text, str) else json.dumps(text))
        return file

    return write


def place(server, **fields):
    return Place(servers=(server.address,), **fields)


async def test_two_accounts_do_not_see_each_other(server, serve, connect, credentials):
    nats = server(config=ACCOUNTS).start()
    a, b = (credentials({"user": name, "password": f"secret-{name}"}) for name in "ab")
    await serve(nats, Echo(), place=place(nats, credentials=a))
    ours = await connect(nats, credentials=str(a))
    assert (await ours.request("invoke", PARAMS)).result == {"n": 1}
    theirs = await connect(nats, credentials=str(b))
    with pytest.raises(Unreachable, match="no worker serves it"):
        await theirs.request("invoke", PARAMS)


async def test_without_the_right_credentials_it_is_forbidden(server, connect, credentials):
    nats = server(config=ACCOUNTS).start()
    for wrong in ({"user": "a", "password": "secret-b"}, {"token": "secret-a"}):
        with pytest.raises(Forbidden, match="Authorization Violation") as caught:
            await connect(nats, host=Host(), credentials=str(credentials(wrong)))
        assert "secret" not in str(caught.value)
    with pytest.raises(Forbidden):
        await connect(nats, host=Host())


async def test_an_nkey_is_a_credential(server, serve, connect, credentials):
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    nats = server(config=f"authorization {{ users = [{{nkey: {public}}}] }}").start()
    file = credentials(seed.decode() + "\n")
    await serve(nats, Echo(), place=place(nats, credentials=file))
    connection = await connect(nats, credentials=str(file))
    assert (await connection.request("invoke", PARAMS)).ok


@pytest.mark.parametrize("text", ["", "hunter2", "[]", '{"user":"a"}', '{"token":5}', "-----BEGIN NATS USER JWT-----"])
async def test_credentials_that_are_none(nats, connect, credentials, text):
    with pytest.raises(Unreachable, match="expected NATS credentials, an nkey, or") as caught:
        await connect(nats, credentials=str(credentials(text)))
    assert "hunter2" not in str(caught.value)


async def test_a_file_of_nsc_needs_a_server_that_asks_for_it(nats, connect, credentials):
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
    text = (
        f"-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n"
    )
    connection = await connect(nats, credentials=str(credentials(text + "------END USER NKEY SEED------\n")))
    assert connection.clues()["servers"] == [nats.address]


async def test_files_that_are_not_there(nats, connect, tmp_path):
    for fields in ({"credentials": "/no/such"}, {"tls": {"ca": "/no/such"}}, {"tls": {"cert": "/no", "key": "/no"}}):
        with pytest.raises(Unreachable, match="No such file"):
            await connect(nats, **fields)


async def test_where_nobody_is_the_mount_fails_soon(session):
    with pytest.raises(Unreachable, match="NATS at 127.0.0.1:1: .*; no-such-host.invalid:1: |NATS at no-such-host"):
        await session.mount(
            "/mnt/tools", descriptor(["127.0.0.1:1", "no-such-host.invalid:1"], subject="s"), timeout=30
        )


async def test_after_a_failure_the_next_call_fails_with_the_same_for_a_moment(connect):
    errors = []
    for _ in range(2):
        with pytest.raises(Unreachable) as caught:
            await connect("127.0.0.1:1")
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].message == errors[1].message


async def test_a_server_that_is_none_is_given_up(connect):
    async def babble(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    babbling = await asyncio.start_server(babble, "127.0.0.1", 0)
    with pytest.raises(Unreachable, match="expecting INFO"):
        await connect(f"127.0.0.1:{babbling.sockets[0].getsockname()[1]}")
    babbling.close()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="TimeoutError"):
        await connect(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.fixture
async def strange(later):
    """Start a server that greets as NATS does, and answers each of its client's words as a test says."""

    async def start(seen=None, **answers):
        seen = [] if seen is None else seen

        async def serve(reader, writer):
            writer.write(b'INFO {"headers":true,"max_payload":1048576}\r\n')
            async for line in reader:
                answer = answers.get(line.split()[0].decode().lower(), b"")
                if isinstance(answer, list):
                    answer = answer.pop(0) if answer else b""
                seen.append(line)
                if answer is None:
                    break
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        later.callback(server.close)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    return start


async def test_a_server_that_hangs_up_is_unreachable(strange, connect):
    with pytest.raises(Unreachable, match="the server closed the connection|unexpected EOF|UnexpectedEOF"):
        await connect(await strange(connect=None))


async def test_a_server_that_takes_no_subscription_is_unreachable(strange, connect, serve):
    there = SimpleNamespace()
    there.address = await strange(ping=b"PONG\r\n", sub=b"-ERR 'Maximum Subscriptions Exceeded'\r\n")
    with pytest.raises(Unreachable, match="maximum subscriptions exceeded"):
        await connect(there)
    with pytest.raises(Unreachable, match="maximum subscriptions exceeded"):
        await serve(there, Echo())


async def test_who_closes_while_it_connects_leaves_nothing(strange, connect):
    host = Host()
    seen: list = []
    address = await strange(seen, ping=[b"PONG\r\n"])
    opening = asyncio.ensure_future(connect(address, host=host))
    await until(lambda: any(line.startswith(b"SUB") for line in seen))
    await host.close()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_a_server_that_answers_no_ping_is_not_waited_for(strange):
    address = await strange(ping=[b"PONG\r\n"])
    client = await connect_to(Place(servers=(address,)), "me", lambda _: None, lambda _: None)
    with pytest.raises(FlushTimeoutError):
        await client.flush(1)
    await client.leave()


async def test_a_server_that_was_not_there_at_first_is_no_failure(server):
    nats = server().start()
    nats.stop()
    heard = []

    def start(said):  # nats-py tries once more
        heard.append(said)
        nats.start()

    client = await connect_to(Place(servers=(nats.address,)), "me", lambda _: None, start)
    await client.flush()
    client.check()
    assert len(heard) == 1 and client.is_connected
    await client.leave()


async def test_of_several_servers_one_that_answers_is_enough(nats, serve, connect):
    await serve(nats, Echo())
    for _ in range(4):
        connection = await connect(["127.0.0.1:1", nats.address], host=Host())
        assert (await connection.request("invoke", PARAMS)).ok
        await connection._link.close()


@pytest.fixture
def secure(tmp_path, server):
    """Start a server with a certificate of an authority of the test's own, which asks clients for theirs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {}
    for name in ("127.0.0.1", "me"):
        issued = authority.issue_cert(name)
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
        files[name] = str(tmp_path / f"{name}.pem")
    own = f'cert_file: "{files["127.0.0.1"]}", key_file: "{files["127.0.0.1"]}"'
    return server(config=f'tls {{ {own}, ca_file: "{tmp_path}/ca.pem", verify: true }}').start(), {
        "ca": str(tmp_path / "ca.pem"),
        "cert": files["me"],
        "key": files["me"],
    }


async def test_both_sides_show_their_certificates(secure, serve, connect):
    nats, tls = secure
    await serve(nats, Echo(), place=place(nats, tls=Tls(**tls)))
    connection = await connect(nats, tls=tls)
    assert (await connection.request("invoke", PARAMS)).result == {"n": 1}
    connection = await connect(nats, tls={**tls, "server_name": "127.0.0.1"})
    assert (await connection.request("invoke", PARAMS)).ok


async def test_who_is_not_trusted_is_not_spoken_to(secure, nats, connect, monkeypatch, credentials):
    encrypted, tls = secure
    monkeypatch.setenv("SSL_CERT_FILE", tls["ca"])  # the environment has no say
    secret = str(credentials({"token": "hunter2"}))
    said = ""
    asked: list[tuple[object, dict]] = [
        (encrypted, {"tls": {}}),
        (encrypted, {"tls": {**tls, "server_name": "other.example"}}),
        (encrypted, {"tls": False}),
        (encrypted, {"tls": {"ca": tls["ca"]}}),
        (nats, {"tls": tls, "credentials": secret}),
    ]
    for server, fields in asked:
        with pytest.raises(KernelError) as caught:
            await connect(server, host=Host(), **fields)
        assert caught.value.code in ("unreachable", "forbidden")
        said = caught.value.message
    assert "the server does not ask for TLS" in said
