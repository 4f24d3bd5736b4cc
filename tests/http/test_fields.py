"""What a descriptor may say to the HTTP transport, and the one line that refuses the rest."""

import re

import attrs
import pytest
from tests.http.raw import describe_remote, respond

from amplifier_core import BadRequest
from amplifier_transport_http import open_transport


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, "expected an absolute URL"),
        (7, "expected an absolute URL like https://example.com/path, got 7"),
        ("", "expected an absolute URL"),
        ("/invoke", "expected an absolute URL"),
        ("//host/x", "expected an absolute URL"),
        ("ftp://host/x", "expected an absolute URL"),
        ("http:///x", "expected an absolute URL"),
        ("http://a..b/x", "expected an absolute URL"),
        (f"http://{'a' * 64}.example/x", "expected an absolute URL"),
        ("http://a b/x", "expected an absolute URL"),
        ("http://a\\b/x", "expected an absolute URL"),
        ("http://host\n/x", "expected an absolute URL"),
        ("http://host:0/x", "expected an absolute URL"),
        ("http://host:none/x", "expected an absolute URL"),
        ("http://host:70000/x", "expected a port from 1 to 65535, got 70000"),
        ("http://host/x?", "expected no query"),
        ("http://host/x#here", "expected no fragment"),
        ("http://ada:secret@host/x", "expected no user and no password"),
    ],
)
def test_a_url_that_names_no_module_is_refused_in_one_line(url, expected):
    with pytest.raises(BadRequest) as refused:
        open_transport(describe_remote(url))
    assert refused.value.message.startswith(f"descriptor: $.transport.url: {expected}")
    assert "\n" not in refused.value.message
    assert "secret" not in refused.value.message
    assert refused.value.details == {"path": "$.transport.url"}


@pytest.mark.parametrize(
    ("transport", "path", "expected"),
    [
        ({"header": {"authorization": "secret"}}, ".header", "expected one of type, url, headers, ca, proxy, http2"),
        ({"http2": 1}, ".http2", "expected true or false, got 1"),
        ({"proxy": 7}, ".proxy", "expected the URL of a proxy like http://127.0.0.1:3128"),
        ({"proxy": "socks5://127.0.0.1:1"}, ".proxy", "expected the URL of a proxy"),
        ({"proxy": "http://[::1/"}, ".proxy", "expected the URL of a proxy"),
        ({"proxy": "http://:secret@"}, ".proxy", "expected the URL of a proxy"),
        ({"headers": []}, ".headers", "expected an object of text to text, got []"),
        ({"headers": {"a b": "x"}}, ".headers", "expected the names of HTTP headers, got 'a b'"),
        ({"headers": {"": "x"}}, ".headers", "expected the names of HTTP headers, got ''"),
        ({"headers": {"x-a\n": "x"}}, ".headers", "expected the names of HTTP headers"),
        ({"headers": {"x-a": 7}}, ".headers.x-a", "expected printable ASCII text"),
        ({"headers": {"x-a": "secret\r\nx-b: 1"}}, ".headers.x-a", "expected printable ASCII text"),
        ({"headers": {"x-a": "secret\n"}}, ".headers.x-a", "expected printable ASCII text"),
        ({"headers": {"x-a": " secret"}}, ".headers.x-a", "expected printable ASCII text"),
        ({"headers": {"x-a": "sécret"}}, ".headers.x-a", "expected printable ASCII text"),
        ({"headers": {"x-a": "1", "X-A": "2"}}, ".headers.X-A", "the header is there twice"),
        ({"headers": {"Content-Length": "1"}}, ".headers.Content-Length", "the transport sets this header itself"),
        ({"headers": {"X-Request-ID": "1"}}, ".headers.X-Request-ID", "the transport sets this header itself"),
        ({"headers": {"traceparent": "1"}}, ".headers.traceparent", "the transport sets this header itself"),
        ({"headers": {"Host": "elsewhere"}}, ".headers.Host", "the transport sets this header itself"),
        ({"ca": 7}, ".ca", "expected the path of a file of PEM certificates, got 7"),
        ({"ca": ""}, ".ca", "expected the path of a file of PEM certificates, got ''"),
        ({"ca": "a\0b"}, ".ca", "expected the path of a file of PEM certificates"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_in_one_line(transport, path, expected):
    with pytest.raises(BadRequest) as refused:
        open_transport(describe_remote("http://127.0.0.1:1", transport=transport))
    assert refused.value.message.startswith(f"descriptor: $.transport{path}: {expected}")
    assert "\n" not in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("name", ["there", "none"])
def test_a_descriptor_of_a_module_names_no_file(tmp_path, name):
    """An error about the file would tell the module whether it is there."""
    (tmp_path / "there").touch()
    descriptor = describe_remote("https://127.0.0.1:1", transport={"ca": str(tmp_path / name)})
    with pytest.raises(BadRequest, match="ca: expected none: a module wrote the descriptor, and names no file"):
        open_transport(attrs.evolve(descriptor, caller="/mnt/agents/a"))
    open_transport(attrs.evolve(describe_remote("https://127.0.0.1:1"), caller="/mnt/agents/a"))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8137",
        "HTTP://LOCALHOST:80/",
        "https://[::1]:8443/a/b/",
        "http://bücher.example/ä",
        "http://h:/",
    ],
)
def test_opening_takes_any_absolute_url_and_touches_nothing(url):
    connection = open_transport(describe_remote(url))
    assert connection.local is False


def test_all_but_system_calls_is_for_policy_to_judge_since_the_module_has_another_host():
    capabilities = ["net:connect:*", "sys:emit", "x-billing:spend", "sys:invoke:/mnt/tools/*"]
    connection = open_transport(describe_remote("http://127.0.0.1:1", capabilities=capabilities))
    assert connection.unenforced == ("net:connect:*",)


@pytest.mark.parametrize("base", ["", "/", "/a/b", "/a/b/", "/ä b", "/a%2Fb"])
async def test_the_operations_stand_below_the_path_of_the_url(serve, connect, base):
    async def answer(request):
        await request.send(respond({"ok": True, "result": None}))

    server = await serve(answer)
    connection = await connect(f"{server.url}{base}")
    await connection.request("invoke", b"{}")
    assert server.paths == [f"{base.rstrip('/')}/invoke".replace("ä b", "%C3%A4%20b")]


async def test_a_request_is_json_with_the_headers_of_the_descriptor(serve, connect):
    async def answer(request):
        await request.send(respond({"ok": True, "result": None}))

    server = await serve(answer)
    headers = {"Authorization": "Bearer secret", "User-Agent": "mine", "X-Empty": ""}
    connection = await connect(server, transport={"headers": headers})
    await connection.request("invoke", b'{"op":"count"}')
    (request,) = server.requests
    assert re.fullmatch("[0-9a-f]{16}", request.headers.pop("x-request-id"))
    assert request.method == "POST"
    assert request.body == b'{"op":"count"}'
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json, application/x-ndjson",
        "accept-encoding": "identity",
        "authorization": "Bearer secret",
        "content-length": "14",
        "content-type": "application/json",
        "user-agent": "mine",
        "x-empty": "",
    }


async def test_nothing_is_read_from_the_environment(serve, connect, monkeypatch, tmp_path):
    async def answer(request):
        await request.send(respond({"ok": True, "result": None}))

    server = await serve(answer)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    connection = await connect(server)
    await connection.request("invoke", b"{}")
    assert "authorization" not in server.requests[0].headers


def test_http2_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("amplifier_transport_http._fields.find_spec", lambda _: None)
    with pytest.raises(BadRequest, match=r"h2 is not installed; try: pip install amplifier-transport-http\[http2\]"):
        open_transport(describe_remote("https://module.test", transport={"http2": True}))


@pytest.mark.parametrize(
    ("url", "proxy", "endpoints"),
    [
        ("http://host/x", None, ("host:80",)),
        ("https://HOST/x", None, ("host:443",)),
        ("https://[::1]:8443", None, ("[::1]:8443",)),
        ("http://bücher.example", None, ("xn--bcher-kva.example:80",)),
        ("https://host:1", "http://user:secret@proxy.example:3128", ("host:1", "proxy.example:3128")),
        ("https://host:1", "https://proxy.example", ("host:1", "proxy.example:443")),
    ],
)
def test_a_connection_tells_where_it_connects_to(url, proxy, endpoints):
    descriptor = describe_remote(url, transport={"proxy": proxy} if proxy else {})
    assert open_transport(descriptor).endpoints == endpoints


@pytest.mark.parametrize(
    "url", ["ftp://ada:secret@host/x", "http://ada:secret/x@host", "http:///x?secret", "ftp://host/x?key=secret@h"]
)
def test_an_error_shows_no_secret_of_a_url(url):
    with pytest.raises(BadRequest) as refused:
        open_transport(describe_remote(url))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("headers", ["authorization: secret", ["authorization: secret"]])
def test_an_error_shows_no_secret_of_headers(headers):
    with pytest.raises(BadRequest, match="expected an object of text to text, got '(str|list)'") as refused:
        open_transport(describe_remote("http://host", transport={"headers": headers}))
    assert "secret" not in str(refused.value)
