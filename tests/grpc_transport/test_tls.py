"""TLS with certificates of an authority of the test's own: who is trusted, and by whom."""

import datetime as dt
import json
import os
import ssl
from pathlib import Path

import grpc
import pytest
import trustme
from tests.grpc_transport.servers import descriptor

from amplifier_core import Unreachable, load_descriptor
from amplifier_transport_grpc import _trust, open_transport

PARAMS = b'{"op":"good","args":{"n":1}}'
FAR = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def ca(tmp_path):
    """An authority; its file is ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


@pytest.fixture
def issue(tmp_path, ca):
    """Issue a certificate, and give the fields of ``tls`` that name its files."""

    def write(name, by=None, **options):
        issued = (by or ca).issue_cert(name, **options)
        (tmp_path / f"{name}.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        return {"cert": str(tmp_path / f"{name}.pem"), "key": str(tmp_path / f"{name}.key")}

    return write


@pytest.fixture
def secure(serve, tmp_path, issue):
    """Start a server with a certificate, and perhaps one that asks clients for theirs."""

    async def start(name="127.0.0.1", *, clients=False, **options):
        files = issue(name, **options)
        pair = Path(files["key"]).read_bytes(), Path(files["cert"]).read_bytes()
        root = (tmp_path / "ca.pem").read_bytes() if clients else None
        tls = grpc.ssl_server_credentials([pair], root, require_client_auth=clients)
        return await serve(tls=tls)

    return start


@pytest.fixture
def trust(tmp_path):
    return {"ca": str(tmp_path / "ca.pem")}


async def test_a_server_of_the_named_authority_is_trusted(secure, connect, trust):
    connection = await connect(await secure(), tls=trust)
    assert (await connection.request("invoke", PARAMS)).result == {"n": 1}


async def test_the_authority_may_stand_beside_the_descriptor_file(secure, session, trust, tmp_path):
    server = await secure()
    fields = {"name": "m", "kind": "tool", "capabilities": []}
    transport = {"type": "grpc", "target": server.target, "tls": {"ca": "ca.pem"}}
    (tmp_path / "m.json").write_text(json.dumps({**fields, "transport": transport}))
    await session.mount("/mnt/tools", load_descriptor(tmp_path / "m.json"))
    assert await session.invoke("/mnt/tools/m", "good", {"n": 1}) == {"n": 1}


async def test_a_server_of_an_unknown_authority_is_unreachable(secure, connect, trust, monkeypatch):
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", trust["ca"])  # the environment has no say
    monkeypatch.setenv("SSL_CERT_FILE", trust["ca"])
    connection = await connect(await secure(), tls={})
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        await connection.request("invoke", PARAMS)


async def test_an_expired_certificate_is_refused(secure, connect, trust):
    connection = await connect(await secure(not_after=FAR), tls=trust)
    with pytest.raises(Unreachable, match="(?i)expired|verify failed"):
        await connection.request("invoke", PARAMS)


async def test_a_certificate_of_another_host_is_refused_unless_it_is_named(secure, connect, trust):
    server = await secure("other.example")
    connection = await connect(server, tls=trust)
    with pytest.raises(Unreachable, match="(?i)hostname|peer name"):
        await connection.request("invoke", PARAMS)
    connection = await connect(server, tls={**trust, "server_name": "other.example"})
    assert (await connection.request("invoke", PARAMS)).result == {"n": 1}


async def test_a_client_with_the_right_certificate_is_served(secure, connect, trust, issue):
    connection = await connect(await secure(clients=True), tls={**trust, **issue("client.example")})
    assert (await connection.request("invoke", PARAMS)).result == {"n": 1}


async def test_clients_without_a_certificate_or_with_another_are_not_served(secure, connect, trust, issue):
    server = await secure(clients=True)
    others = {}, issue("other.example", by=trustme.CA()), issue("expired.example", not_after=FAR)
    for files in others:
        connection = await connect(server, tls={**trust, **files})
        with pytest.raises(Unreachable):
            await connection.request("invoke", PARAMS)


async def test_a_server_without_tls_is_told_with_what_to_do(serve, connect):
    connection = await connect(await serve(), tls={})
    with pytest.raises(Unreachable, match="if this server does not encrypt, `tls` is false"):
        await connection.request("health", b"{}")


async def test_plain_text_and_tls_do_not_meet(secure, serve, connect, trust):
    for connection in (await connect(await secure()), await connect(await serve(), tls=trust)):
        with pytest.raises(Unreachable):
            await connection.request("invoke", PARAMS)


@pytest.mark.parametrize(
    "make",
    [
        lambda _path: None,
        lambda path: path.write_text("no certificate"),
        lambda path: path.write_text("x" * ((4 << 20) + 1)),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path) if hasattr(os, "mkfifo") else pytest.skip("there are no named pipes"),
    ],
    ids=["none", "other text", "large", "folder", "pipe"],
)
async def test_a_file_without_certificates_fails_the_start(tmp_path, make):
    make(tmp_path / "ca.pem")
    connection = open_transport(descriptor("dns:///127.0.0.1:1", tls={"ca": str(tmp_path / "ca.pem")}))
    with pytest.raises(Unreachable, match="certificates: .*(PEM|regular file|directory|No such file|at most)"):
        await connection.start((), None)
    await connection.close()


def test_the_authorities_of_the_system_are_a_file_or_a_folder(tmp_path, ca, monkeypatch):
    def paths(**found):
        none = {"openssl_cafile": str(tmp_path / "none"), "openssl_capath": str(tmp_path / "none")}
        default = ssl.get_default_verify_paths()._replace(**{**none, **found})
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: default)

    pem = ca.cert_pem.bytes()
    paths(openssl_cafile=str(tmp_path / "ca.pem"))
    assert _trust.system_authorities() == pem
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "01234567.0").write_bytes(pem)
    (tmp_path / "certs" / "README").write_text("no certificate")
    paths(openssl_capath=str(tmp_path / "certs"))
    assert _trust.system_authorities() == pem
    paths()
    with pytest.raises(OSError, match=r"name some in tls\.ca"):
        _trust.system_authorities()
