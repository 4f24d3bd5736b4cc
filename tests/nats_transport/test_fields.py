"""What a descriptor may say of NATS, and what it is told of what it may not."""

from pathlib import Path

import attrs
import pytest
from tests.nats_transport.servers import descriptor

from amplifier_core import BadRequest, ModuleDescriptor
from amplifier_core.hookspecs import Tls
from amplifier_transport_nats._fields import read_fields

HERE = "127.0.0.1:1"


def read(**transport):
    return read_fields(descriptor(HERE, **transport))


@pytest.mark.parametrize(
    ("servers", "endpoints"),
    [
        (HERE, (HERE,)),
        (["nats.example:4222", "tls://[::1]:443"], ("nats.example:4222", "[::1]:443")),
        ("nats://my_host-2:80", ("my_host-2:80",)),
    ],
)
def test_servers_and_their_endpoints(servers, endpoints):
    assert read(servers=servers).place.endpoints == endpoints


WRONG = {
    "no servers": ({"servers": None}, r"servers: expected HOST:PORT, or a list"),
    "an empty list": ({"servers": []}, r"servers: expected HOST:PORT, or a list"),
    "too many": ({"servers": [HERE] * 65}, r"servers: expected HOST:PORT, or a list of at most 64"),
    "a number": ({"servers": [HERE, 5]}, r"servers\[1\]: expected HOST:PORT"),
    "no port": ({"servers": "host"}, r"servers\[0\]: expected HOST:PORT"),
    "port 0": ({"servers": "host:0"}, r"servers\[0\]: expected HOST:PORT"),
    "a port beyond": ({"servers": "host:65536"}, r"servers\[0\]: expected HOST:PORT"),
    "a web socket": ({"servers": "ws://host:80"}, r"servers\[0\]: expected HOST:PORT"),
    "a password": ({"servers": "nats://u:hunter2@host:1"}, r"a password belongs in credentials"),
    "no subject": ({"subject": None}, r"subject: expected words of letters"),
    "a wildcard": ({"subject": "a.*"}, r"subject: expected words of letters"),
    "an empty word": ({"subject": "a..b"}, r"subject: expected words of letters"),
    "a long subject": ({"subject": "a" * 201}, r"subject: expected words of letters"),
    "tls: a text": ({"tls": "yes"}, r"tls: expected an object, or false"),
    "tls: an unknown field": ({"tls": {"verify": False}}, r"tls\.verify: expected one of"),
    "tls: a number as file": ({"tls": {"ca": 5}}, r"tls\.ca: expected the path of a PEM file, got 5"),
    "tls: a certificate alone": ({"tls": {"cert": "a"}}, r"tls: expected cert and key, or neither"),
    "tls: a name that is none": ({"tls": {"server_name": "a b"}}, r"tls\.server_name: expected the name of a host"),
    "credentials: none": ({"credentials": ""}, r"credentials: expected the path of a file"),
    "another field": ({"queue": "q"}, r"queue: expected one of"),
}


@pytest.mark.parametrize(("fields", "why"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit(fields, why):
    with pytest.raises(BadRequest, match=why) as caught:
        read(**fields)
    assert "hunter2" not in str(caught.value)


def test_files_are_beside_the_descriptor(tmp_path):
    tls = {"ca": "ca.pem", "cert": "c.pem", "key": "/k.pem", "server_name": "nats.example"}
    fields = attrs.evolve(descriptor(HERE, tls=tls, credentials="me.creds"), base=tmp_path)
    place = read_fields(fields).place
    assert place.tls == Tls(
        ca=tmp_path / "ca.pem", cert=tmp_path / "c.pem", key=Path("/k.pem"), server_name="nats.example"
    )
    assert place.credentials == tmp_path / "me.creds"
    assert read(tls={}).place.tls == Tls()


@pytest.mark.parametrize("fields", [{"tls": {"ca": "/ca.pem"}}, {"credentials": "/me.creds"}])
def test_a_module_names_no_file_of_this_host(fields):
    transport = {"type": "nats", "servers": [HERE], "subject": "s", **fields}
    told = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
    with pytest.raises(BadRequest, match="a module wrote the descriptor, and names no file of this host"):
        read_fields(ModuleDescriptor.from_mapping(told, caller="/mnt/agents/a"))
