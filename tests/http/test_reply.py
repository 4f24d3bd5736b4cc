"""What a response means: a reply of the right shape decides, whatever the status; without one the status does."""

import gzip

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
    assert "invalid JSON: Expected `object`, got `str` - at `$.error`" in raised.value.message


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
