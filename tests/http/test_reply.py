"""What a response means: a reply of the right shape decides, whatever the status; without one the status does."""

import gzip
import json

import httpx
import pytest
from tests.http.raw import DESCRIPTION, respond

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_transport_http import unreachable

REPLY = {"ok": True, "result": {"words": 2}}
FAILURE = {"ok": False, "error": {"code": "no_such_word", "message": "none", "details": {"word": "x"}}}
PENDING = {"pending": {"syscalls": [], "state": {"step": 1}}}

CODES = {
    "bad_request": (400, 413, 422),
    "forbidden": (401, 403),
    "unsupported_op": (404, 405, 501),
    "timeout": (408, 504),
    "unreachable": (429, 502, 503),
    "internal": (200, 201, 204, 206, 299, 300, 301, 303, 304, 308, 402, 406, 409, 410, 418, 431, 500, 505, 599),
}
STATUSES = [(status, code) for code, statuses in CODES.items() for status in statuses]
BODILESS = (204, 304)


@pytest.fixture
async def ask(serve, connect):
    """Ask one question of a server that answers with the given bytes."""

    async def exchange(response, method="invoke", **fields):
        async def answer(request):
            await request.send(response)

        connection = await connect(await serve(answer), **fields)
        return await connection.request(method, b"{}")

    return exchange


@pytest.mark.parametrize(("status", "code"), STATUSES)
async def test_without_a_reply_the_status_decides(serve, connect, status, code):
    async def answer(request):
        await request.send(respond(bodies[-1], status))

    bodies = [b"", b"<html>x</html>", b"plain text", {"detail": "Not Found"}, {"status": 404}]
    server = await serve(answer)
    connection = await connect(server)
    if status in BODILESS:
        del bodies[1:]
    while bodies:
        for method in ("health", "describe", "invoke"):
            if status // 100 == 2 and isinstance(bodies[-1], dict) and method != "invoke":
                assert (await connection.request(method, b"{}")).result == bodies[-1]  # which mounting looks at
                continue
            with pytest.raises(KernelError) as raised:
                await connection.request(method, b"{}")
            assert raised.value.code == code
            assert raised.value.details["http_status"] == status
            assert raised.value.details["url"] == f"{server.url}/{method}"
            assert f"answered HTTP {status} with " in raised.value.message
        bodies.pop()


@pytest.mark.parametrize("status", [status for status, _ in STATUSES if status not in BODILESS])
@pytest.mark.parametrize("reply", [REPLY, FAILURE, PENDING])
async def test_a_reply_of_the_right_shape_decides_whatever_the_status(ask, status, reply):
    message = await ask(respond(reply, status, ["location: /elsewhere"]))
    assert message.is_reply()
    if reply is FAILURE:
        assert (message.error.code, message.error.details) == ("no_such_word", {"word": "x"})
    elif reply is REPLY:
        assert message.result == {"words": 2}
    else:
        assert bytes(message.pending.state) == b'{"step": 1}'


@pytest.mark.parametrize("status", [200, 500])
async def test_health_and_describe_come_bare(ask, status):
    health = await ask(respond({"status": "ok", "more": 1}, status), "health")
    assert (health.ok, health.result) == (True, {"status": "ok", "more": 1})
    description = await ask(respond(DESCRIPTION, status), "describe")
    assert (description.ok, description.result) == (True, DESCRIPTION)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("method", ["health", "describe"])
async def test_health_and_describe_may_fail_as_any_reply(ask, status, method):
    message = await ask(respond(FAILURE, status), method)
    assert (message.ok, message.error.code) == (False, "no_such_word")


@pytest.mark.parametrize("method", ["health", "describe"])
async def test_an_error_without_its_shape_is_no_reply_to_health_and_describe_either(ask, method):
    with pytest.raises(Internal) as raised:
        await ask(respond({"ok": False, "error": "it broke"}), method)
    assert "invalid JSON: Expected `object | null`, got `str` - at `$.error`" in raised.value.message


@pytest.mark.parametrize("value", [[], 7, "ok", None, {"status": "starting"}, {"name": "raw"}])
@pytest.mark.parametrize("method", ["health", "describe"])
async def test_any_json_that_is_no_bare_answer_leaves_a_failure_to_its_status(ask, value, method):
    with pytest.raises(Unreachable) as raised:
        await ask(respond(value, 503), method)
    assert f"HTTP 503 with no answer to {method}" in raised.value.message


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"Traceback: \xc3\xa4h", "Traceback: äh"),
        (b"x" * 1000, "x" * 200),
        ("ä".encode() * 1000, "ä" * 200),
        (b"\x89PNG\r\n", None),
        (b"", None),
    ],
)
async def test_the_beginning_of_a_text_stands_in_the_details(ask, body, excerpt):
    with pytest.raises(Internal) as raised:
        await ask(respond(body, 500))
    assert raised.value.details.get("body") == excerpt


async def test_the_size_of_a_message_is_that_of_its_json(ask):
    assert (await ask(respond(REPLY))).size == len(b'{"ok": true, "result": {"words": 2}}')
    assert (await ask(respond({"status": "ok"}), "health")).size == len(b'{"status": "ok"}')


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_limit_of_a_message_counts_to_the_byte(ask, extra):
    body = b'{"ok": true, "result": "%s"}' % (b"x" * 1000)
    limits = {"message_bytes": len(body) - extra}
    for response in (respond(body), respond(gzip.compress(body), headers=["content-encoding: gzip"])):
        if not extra:
            assert (await ask(response, limits=limits)).result == "x" * 1000
            continue
        with pytest.raises(Internal) as raised:
            await ask(response, limits=limits)
        assert f"answered with more than {len(body) - 1} bytes (limits.message_bytes)" in raised.value.message


async def test_a_redirect_with_a_password_is_not_followed_and_the_password_not_shown(serve, connect):
    async def answer(request):
        target = f"http://ada:secret@127.0.0.1:{server.port}/elsewhere?{'x' * 1000}"
        await request.send(respond(b"moved", 307, [f"location: {target}"]))

    server = await serve(answer)
    connection = await connect(server)
    with pytest.raises(Internal) as raised:
        await connection.request("invoke", b"{}")
    assert server.paths == ["/invoke"]
    assert raised.value.details["location"] == f"http://127.0.0.1:{server.port}/elsewhere?{'x' * 1000}"[:200]
    assert len(raised.value.message) < 500
    assert "secret" not in raised.value.message


async def test_a_very_long_redirect_is_not_followed(serve, connect):
    async def answer(request):
        await request.send(respond(b"moved", 307, [f"location: /{'x' * 5000}"]))

    server = await serve(answer)
    connection = await connect(server)
    with pytest.raises(Internal, match="is not followed"):
        await connection.request("invoke", b"{}")
    assert server.paths == ["/invoke"]


GZIP = ["content-encoding: gzip"]


@pytest.mark.parametrize("cut", [0, 5, 36])
async def test_gzip_may_have_several_members(ask, cut):
    body = json.dumps(REPLY).encode()
    packed = gzip.compress(body[:cut]) + gzip.compress(body[cut:]) + gzip.compress(b"")
    assert (await ask(respond(packed, headers=GZIP))).result == {"words": 2}


async def test_what_follows_a_member_of_gzip_is_another_member(ask):
    with pytest.raises(Internal, match="answered with gzip that cannot be unpacked"):
        await ask(respond(gzip.compress(b"{}") + b"more", headers=GZIP))
    with pytest.raises(Internal, match="answered with gzip without its end"):
        await ask(respond(gzip.compress(b"{}") + gzip.compress(b"{}")[:-1], headers=GZIP))


async def test_gzip_that_unpacks_to_nothing_is_counted(ask):
    with pytest.raises(Internal, match="more than 65536 bytes of gzip in a row that unpack to nothing"):
        await ask(respond(gzip.compress(b"") * 4000, headers=GZIP))
    packed = (gzip.compress(b"") * 2000 + gzip.compress(b" ")) * 3 + gzip.compress(json.dumps(REPLY).encode())
    assert (await ask(respond(packed, headers=GZIP))).result == {"words": 2}


async def test_a_large_answer_is_read_like_a_small_one(ask):
    for method in ("health", "describe"):
        assert (await ask(respond({"status": "ok", "more": "x" * 300_000}), method)).result["status"] == "ok"
        failure = {"ok": False, "error": {"code": "mine", "message": "x" * 300_000}}
        assert (await ask(respond(failure), method)).error.code == "mine"
    assert (await ask(respond({"ok": True, "result": "x" * 300_000}))).result == "x" * 300_000


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (["x: y"] * 100, "more than 100 headers"),
        (["x: " + "y" * 16_384], "a header of more than 16384 bytes"),
        (["x" * 10_000 + ": " + "y" * 10_000], "a header of more than 16384 bytes"),
    ],
)
async def test_more_headers_than_a_server_needs_end_its_answer(ask, headers, why):
    with pytest.raises(Unreachable, match=f"the answer is not HTTP/1.1: {why}"):
        await ask(respond(REPLY, headers=headers))
    assert (await ask(respond(REPLY, headers=["x: " + "y" * 10_000, *["x: y"] * 90]))).result == {"words": 2}


async def test_trailers_are_counted_as_headers(ask):
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    with pytest.raises(Unreachable, match="more than 100 headers"):
        await ask(head + b"x: y\r\n" * 101 + b"\r\n")


async def test_informational_responses_may_come_for_long(ask):
    informational = b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n" * 1000
    assert (await ask(informational + respond(REPLY))).result == {"words": 2}


async def test_what_a_page_of_a_failure_says_is_in_the_message(ask):
    with pytest.raises(KernelError, match="answered HTTP 403 with text, not JSON: Only at localhost, please$"):
        await ask(respond(b"Only at localhost,\n please", 403))
    with pytest.raises(KernelError) as raised:
        await ask(respond(b"x" * 10_000, 403))
    assert len(raised.value.message) < 400


async def test_a_long_coding_is_not_shown_in_full(ask):
    with pytest.raises(Internal) as raised:
        await ask(respond(REPLY, headers=[f"content-encoding: {'x' * 10_000}"]))
    assert len(raised.value.message) < 300


def test_a_long_reason_is_cut():
    error = unreachable(httpx.URL("http://module.test"), "x" * 10_000, OSError("y" * 10_000))
    assert len(error.message) < 1100
    assert [len(cause) for cause in error.details["causes"]] == [1000]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("absolute", [False, True])
async def test_a_redirect_within_the_origin_is_followed_with_the_request_as_it_was(serve, connect, status, absolute):
    async def answer(request):
        if request.path == "/invoke":
            target = f"{server.url}/v2/invoke" if absolute else "/v2/invoke"
            await request.send(respond(b"moved", status, [f"location: {target}"]))
        else:
            await request.send(respond({"ok": True, "result": [request.method, request.params]}))

    server = await serve(answer)
    connection = await connect(server)
    assert (await connection.request("invoke", b'{"op":"count"}')).result == ["POST", {"op": "count"}]
    assert server.connections == 1


PAGE = b"<html><h1>try later</h1></html>"
PAGES = {
    "gzip without a body": (b"", ["content-encoding: gzip"]),
    "gzip that is none": (PAGE, ["content-encoding: gzip"]),
    "gzip that is cut": (gzip.compress(PAGE)[:-5], ["content-encoding: gzip"]),
    "a coding that was not asked for": (b"\x0b\x0f\x80" + PAGE, ["content-encoding: br"]),
    "a coding that is none": (PAGE, ["content-encoding: utf-8"]),
    "a page that is too large": (PAGE * 200, []),
    "a bomb": (gzip.compress(b" " * 1_000_000), ["content-encoding: gzip"]),
    "lines": (b"too\nmuch\n", ["content-type: application/x-ndjson"]),
    "a long line": (PAGE * 200, ["content-type: application/x-ndjson"]),
}


@pytest.mark.parametrize(("body", "headers"), PAGES.values(), ids=PAGES)
@pytest.mark.parametrize(
    ("status", "code"), [(401, "forbidden"), (429, "unreachable"), (504, "timeout"), (599, "internal")]
)
async def test_the_status_decides_whatever_its_page_looks_like(ask, body, headers, status, code):
    for method in ("health", "invoke"):
        with pytest.raises(KernelError, match=f"answered HTTP {status} with") as raised:
            await ask(respond(body, status, headers), method, limits={"message_bytes": 2000})
        assert (raised.value.code, raised.value.details["http_status"]) == (code, status)


@pytest.mark.parametrize(("body", "headers"), PAGES.values(), ids=PAGES)
async def test_a_redirect_is_followed_whatever_its_page_looks_like(serve, connect, body, headers):
    async def answer(request):
        moved = respond(body, 307, [*headers, "location: /v2/invoke"])
        await request.send(moved if request.path == "/invoke" else respond(REPLY))

    connection = await connect(await serve(answer), limits={"message_bytes": 2000})
    assert (await connection.request("invoke", b"{}")).result == {"words": 2}


async def test_a_redirect_that_is_not_followed_is_named_whatever_its_page_looks_like(ask):
    with pytest.raises(Internal, match="the redirect to 'http://elsewhere.test/' is not followed"):
        await ask(respond(b"", 307, ["content-encoding: gzip", "location: http://elsewhere.test/"]))


@pytest.mark.parametrize("status", [200, 413])
async def test_a_status_that_tells_a_failure_counts_even_if_its_page_breaks_off(serve, connect, status):
    async def answer(request):
        await request.send(b"HTTP/1.1 %d No\r\ncontent-length: 500\r\n\r\n" % status + PAGE)
        request.writer.close()

    connection = await connect(await serve(answer))
    with pytest.raises(KernelError) as raised:
        await connection.request("invoke", b"{}")
    assert raised.value.code == ("bad_request" if status == 413 else "unreachable")
    assert raised.value.details.get("http_status") == (413 if status == 413 else None)
