"""What a descriptor may say of gRPC, and what it is told of what it may not."""

from typing import Any

import attrs
import pytest
from tests.grpc_transport.servers import descriptor

from amplifier_core import BadRequest
from amplifier_core.hookspecs import Tls
from amplifier_transport_grpc import open_transport
from amplifier_transport_grpc._fields import read_fields

HERE = "dns:///127.0.0.1:1"


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        (HERE, "127.0.0.1:1"),
        ("dns:///modules.example:65535", "modules.example:65535"),
        ("dns:///[::1]:443", "[::1]:443"),
        ("dns:///my_host-2:80", "my_host-2:80"),
    ],
)
def test_targets_and_their_endpoints(target, endpoint):
    connection = open_transport(descriptor(target, capabilities=["net:connect:*", "sys:mounts", "x-a:b"]))
    assert connection.endpoints == (endpoint,)
    assert connection.unenforced == ("net:connect:*",)
    assert not connection.local


TARGETS = [
    None, 5, "", "127.0.0.1:1", "dns:127.0.0.1:1", "dns://8.8.8.8/host:1", "dns:///host", "dns:///host:", "dns:///host:0",
    "dns:///host:65536", "dns:///host:99999999", "dns:///user@host:1", "dns:///host:1/path", "dns:///host:1?x",
    "dns:///[::1:1", "dns:///h\n:1", "ipv4:127.0.0.1:1", "http://host:1", "unix:relative", "unix:", "unix:/a\0b",
    "unix:/" + "x" * 200, "unix-abstract:x", "xds:///x", "dns:///" + "h" * 300 + ":1",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_are_none(target):
    with pytest.raises(BadRequest, match=r"transport\.target: expected dns:///HOST:PORT or unix:/PATH, got "):
        open_transport(descriptor(target))


TLS = {
    "a text": ("yes", r"tls: expected an object, or false"),
    "true": (True, r"tls: expected an object, or false"),
    "an unknown field": ({"verify": False}, r"tls\.verify: expected one of ca, cert, key, server_name"),
    "a number as file": ({"ca": 5}, r"tls\.ca: expected the path of a PEM file, got 5"),
    "an empty file name": ({"ca": ""}, r"tls\.ca: expected the path of a PEM file"),
    "a null byte": ({"ca": "a\0"}, r"tls\.ca: expected the path of a PEM file"),
    "a certificate without its key": ({"cert": "a"}, r"tls: expected cert and key, or neither"),
    "a key without its certificate": ({"key": "a"}, r"tls: expected cert and key, or neither"),
    "a name that is none": ({"server_name": "a b"}, r"tls\.server_name: expected the name of a host, got 'a b'"),
    "a number as name": ({"server_name": 5}, r"tls\.server_name: expected the name of a host, got 5"),
}


@pytest.mark.parametrize(("tls", "why"), TLS.values(), ids=TLS)
def test_tls_that_is_none(tls, why):
    with pytest.raises(BadRequest, match=why):
        open_transport(descriptor(HERE, tls=tls))


@pytest.mark.parametrize("tls", [None, dict.fromkeys(("ca", "cert", "key", "server_name"))])
def test_null_is_as_good_as_left_out(tls):
    connection: Any = open_transport(descriptor(HERE, tls=tls))
    assert connection._fields.tls == Tls(ca=None, cert=None, key=None, server_name=None)  # it is encrypted


METADATA = {
    "a text": ("a: b", "expected an object of at most 100 texts"),
    "too much": ({f"k{n}": "" for n in range(101)}, "expected an object of at most 100 texts"),
    "an upper case name": ({"Auth": "x"}, "names in lower case"),
    "an empty name": ({"": "x"}, "names in lower case"),
    "a long name": ({"a" * 257: "x"}, "names in lower case"),
    "a name of gRPC's": ({"grpc-timeout": "x"}, "neither gRPC's"),
    "a binary name": ({"x-bin": "x"}, "nor with -bin"),
    "a trace": ({"traceparent": "x"}, "neither gRPC's"),
    "a number": ({"a": 5}, r"metadata\.a: expected printable ASCII text"),
    "a line end": ({"a": "secret\n"}, r"metadata\.a: expected printable ASCII text"),
    "another script": ({"a": "é"}, r"metadata\.a: expected printable ASCII text"),
    "a long text": ({"a": "x" * 16385}, r"metadata\.a: expected printable ASCII text"),
}


@pytest.mark.parametrize(("metadata", "why"), METADATA.values(), ids=METADATA)
def test_metadata_that_is_none(metadata, why):
    with pytest.raises(BadRequest, match=why) as raised:
        open_transport(descriptor(HERE, metadata=metadata))
    assert "secret" not in str(raised.value)


def test_an_unknown_field():
    with pytest.raises(BadRequest, match=r"transport\.url: expected one of type, target, tls, metadata"):
        open_transport(descriptor(HERE, url="x"))


def test_metadata_is_not_shown():
    assert "secret" not in repr(read_fields(descriptor(HERE, metadata={"a": "secret"})))


def test_a_module_names_no_file_and_no_socket_of_this_host():
    sent = attrs.evolve(descriptor(HERE, tls={"ca": "/etc/x.pem"}), caller="/mnt/agents/a")
    with pytest.raises(BadRequest, match=r"tls\.ca: expected none"):
        open_transport(sent)
    with pytest.raises(BadRequest, match="names no socket of this host"):
        open_transport(attrs.evolve(descriptor("unix:/run/x"), caller="/mnt/agents/a"))
    assert open_transport(attrs.evolve(descriptor(HERE), caller="/mnt/agents/a")).endpoints == ("127.0.0.1:1",)
