"""What a descriptor may say of a server, and the one line that says what does not fit."""

import attrs
import pytest

from amplifier_core import BadRequest

URL = {"url": "https://example.com/mcp"}
COMMAND = {"command": ["server"]}
DEPTH = {"path": "/mnt/tools/x", "op": "y"}


@pytest.mark.parametrize(
    ("transport", "path", "expected"),
    [
        ({}, "", "either a command (a server here) or a url (a server elsewhere)"),
        ({**URL, **COMMAND}, "", "either a command (a server here) or a url (a server elsewhere)"),
        ({**URL, "heads": {}}, ".heads", "expected one of type, url, headers, ca, roots, sampling, elicitation"),
        ({**COMMAND, "headers": {}}, ".headers", "expected one of type, command, cwd, env, roots"),
        ({"command": "server"}, ".command", "expected a list of text that is not empty"),
        ({"url": 5}, ".url", "expected an absolute URL like https://example.com/path, got 5"),
        ({"url": None}, ".url", "got nothing"),
        ({"url": ""}, ".url", "expected an absolute URL"),
        ({"url": "/mcp"}, ".url", "expected an absolute URL"),
        ({"url": "ftp://example.com/"}, ".url", "expected an absolute URL"),
        ({"url": "http://example.com:0/"}, ".url", "expected an absolute URL"),
        ({"url": "http://example.com:70000/"}, ".url", "expected a port from 1 to 65535, got 70000"),
        ({"url": "http://[::1/"}, ".url", "Invalid port"),
        ({"url": "http://exa mple.com/"}, ".url", "expected an absolute URL"),
        ({"url": "http://a\\b/"}, ".url", "expected an absolute URL"),
        ({"url": "http://me:secret@example.com/"}, ".url", "expected no user and no password"),
        ({"url": "http://example.com/#x"}, ".url", "expected no fragment"),
        ({**URL, "headers": []}, ".headers", "expected an object of text to text, got []"),
        ({**URL, "headers": {"a b": ""}}, ".headers", "expected the names of HTTP headers, got 'a b'"),
        ({**URL, "headers": {"Accept": "x"}}, ".headers.Accept", "the transport sets this header itself"),
        ({**URL, "headers": {"mcp-session-id": "x"}}, ".headers.mcp-session-id", "the transport sets this"),
        ({**URL, "headers": {"x": "1", "X": "2"}}, ".headers.X", "the header is there twice"),
        ({**URL, "headers": {"x": " 1"}}, ".headers.x", "expected printable ASCII text"),
        ({**URL, "headers": {"x": 1}}, ".headers.x", "expected printable ASCII text"),
        ({**URL, "ca": ""}, ".ca", "expected the path of a file of PEM certificates, got ''"),
        ({**URL, "roots": "x"}, ".roots", "expected a list of paths, got 'x'"),
        ({**URL, "roots": [""]}, ".roots", "expected a list of paths, got ['']"),
        ({**URL, "sampling": True}, ".sampling", "expected an object like"),
        ({**URL, "sampling": {"path": "/mnt/tools/x"}}, ".sampling", "expected an object like"),
        ({**URL, "elicitation": {"path": "/mnt/tools/x", "op": 5}}, ".elicitation", "expected an object like"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_refused_in_one_line(describe, open_one, transport, path, expected):
    descriptor = describe([], transport={"command": None, **transport})
    object.__setattr__(descriptor, "transport", {"type": "mcp", **transport})
    with pytest.raises(BadRequest) as caught:
        open_one(descriptor)
    assert str(caught.value).startswith(f"bad_request: descriptor: $.transport{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "transport",
    [
        {"url": "http://127.0.0.1:1/mcp"},
        {"url": "https://[::1]:8443/"},
        {"url": "https://example.com?key=x", "headers": {"Authorization": "Bearer x"}, "ca": "ca.pem"},
        {**COMMAND, "cwd": ".", "env": {"A": "b"}, "roots": [], "sampling": DEPTH, "elicitation": DEPTH},
    ],
)
def test_opening_touches_nothing(describe, open_one, transport):
    descriptor = describe([], transport={"command": None})
    object.__setattr__(descriptor, "transport", {"type": "mcp", **transport})
    connection = open_one(descriptor)
    assert connection.local is ("command" in transport)


def test_the_transport_keeps_to_what_was_granted_of_tools_and_to_nothing_else(describe, open_one):
    words = ["net:connect:*", "sys:invoke", "x-mcp:tool:a", "x-mcp:tool", "x-other:y"]
    connection = open_one(describe("http://127.0.0.1:1/mcp", capabilities=words))
    assert connection.unenforced == ("net:connect:*",)


def test_a_server_elsewhere_tells_where_it_is_and_one_here_does_not(describe, open_one):
    assert open_one(describe("https://example.com/mcp?key=x")).endpoints == ("example.com:443",)
    assert open_one(describe(["server"])).endpoints == ()


def test_roots_that_a_module_wrote_are_absolute_and_not_looked_at(describe, open_one, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    written = describe(["server"], transport={"roots": [f"{tmp_path}/x/../link"]})
    connection = open_one(attrs.evolve(written, caller="/mnt/agents/a"))
    assert connection._inputs.roots == (f"{tmp_path}/link",)
    relative = attrs.evolve(describe(["server"], transport={"roots": ["link"]}), caller="/mnt/agents/a")
    with pytest.raises(BadRequest, match=r"transport\.roots: expected absolute paths, .*, got 'link'"):
        open_one(relative)
