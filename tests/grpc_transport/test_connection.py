"""What a gRPC module is asked and what it answers, with real servers, through the kernel and without it."""

import asyncio
import json

import grpc
import pytest
from tests.grpc_transport.servers import DESCRIPTION, descriptor, message, ok, params_of

from amplifier_core import Forbidden, KernelError, Timeout, Unreachable
from amplifier_core.hookspecs import Chunks
from amplifier_core.testing import check_module
from amplifier_transport_grpc import open_transport

M = "/mnt/tools/m"


def params(op="good", **args):
    return json.dumps({"op": op, "args": args}).encode()


async def test_a_module_is_mounted_and_invoked(serve, session, events):
    server = await serve()
    await session.mount("/mnt/tools", descriptor(server.target, metadata={"authorization": "Bearer secret"}))
    args = {"n": 2**70, "none": None, "text": "é\u2028", "deep": [[[{}]]]}
    assert await session.invoke(M, "good", args, timeout=5) == args
    (asked, context) = server.requests[0]
    metadata = dict(context.invocation_metadata())
    event = events("module:invoke")[0]
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["traceparent"] == f"00-{asked['request_id']}-{asked['span_id']}-01"
    assert (asked["request_id"], asked["span_id"]) == (event["request_id"], event["span_id"])
    assert 4 < context.time_remaining() < 6 or asked["deadline_ms"] <= 5000
    assert "secret" not in json.dumps(events())


async def test_policy_and_errors_have_no_value_of_the_metadata(serve, session, events):
    async def invoke(_request, context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such user")

    async def approve(event):
        seen.append(event.data["args"])
        return {"decision": "allow"}

    seen = []
    server = await serve(invoke=invoke)
    await session.register_hook("policy:request", approve, priority=1)
    metadata = {"authorization": "Bearer secret", "x-name": "also-secret"}
    await session.mount("/mnt/tools", descriptor(server.target, metadata=metadata))
    with pytest.raises(Forbidden, match="no such user") as raised:
        await session.invoke(M, "good", {})
    told = json.dumps([seen, events(), raised.value.body()], default=str)
    assert list(seen[0]["descriptor"]["transport"]["metadata"]) == ["authorization", "x-name"]
    assert "authorization" in told
    assert "secret" not in told


async def test_no_proxy_of_the_environment_is_used(serve, connect, monkeypatch):
    nowhere = "127.0.0.1:1"
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", nowhere)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8,::1/128")
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{nowhere}")
    connection = await connect(await serve())
    assert (await connection.request("invoke", params(n=1))).result == {"n": 1}


async def test_it_conforms(serve):
    server = await serve(invoke=_conforming, stream=_conforming_stream, describe=_described(inputs={"good": {}}))
    checks = await check_module(descriptor(server.target), {"good": {"a": 1}})
    assert [check for check in checks if check.problem] == []


def _reply(request):
    asked = params_of(request)
    if asked.get("op") != "good":
        return message(ok=False, error={"code": "unsupported_op", "message": "no such op"})
    return ok(asked["args"])


async def _conforming(request, _context):
    return _reply(request)


async def _conforming_stream(request, _context):
    yield _reply(request)


async def test_chunks_come_in_order_before_the_reply(serve, session):
    server = await serve()
    await session.mount("/mnt/tools", descriptor(server.target))
    chunks = [{"n": 1}, None, "x", [2**64]]
    async with session.stream(M, "tell", {"chunks": chunks}) as stream:
        assert [chunk async for chunk in stream] == chunks
    assert await stream.result() == {"chunks": chunks}


async def test_a_reader_that_is_slow_holds_back_the_server(serve, connect):
    sent = []

    async def stream(_request, _context):
        for n in range(400):
            sent.append(n)
            yield message(chunk="x" * 100_000)
        yield ok(None)

    connection = await connect(await serve(stream=stream))
    chunks = Chunks()
    asking = asyncio.create_task(connection.request("invoke", params(), chunks))
    await chunks.get()
    before = -1
    while len(sent) != before:  # until it stands still
        before = len(sent)
        await asyncio.sleep(0.2)
    assert before < 300
    for _ in range(399):
        await chunks.get()
    assert (await asking).ok
    assert len(sent) == 400


async def test_messages_of_30_mb_pass(serve, connect):
    connection = await connect(await serve())
    text = "x" * 30_000_000
    assert (await connection.request("invoke", params(text=text))).result == {"text": text}


async def test_a_thousand_calls_at_once(serve, connect):
    connection = await connect(await serve())
    replies = await asyncio.gather(*(connection.request("invoke", params(n=n)) for n in range(1000)))
    assert [reply.result["n"] for reply in replies] == list(range(1000))


async def test_a_cancel_reaches_the_server(serve, session):
    told = asyncio.Event()

    async def invoke(_request, _context):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.set()
            raise

    server = await serve(invoke=invoke)
    await session.mount("/mnt/tools", descriptor(server.target))
    with pytest.raises(Timeout):
        await session.invoke(M, "wait", {}, timeout=0.3)
    async with asyncio.timeout(10):
        await told.wait()


async def test_closing_fails_what_is_in_flight(serve, connect):
    asked = asyncio.Event()

    async def invoke(_request, _context):
        asked.set()
        await asyncio.sleep(60)

    async def stream(_request, _context):
        yield message(chunk=1)
        await asyncio.sleep(60)

    connection = await connect(await serve(invoke=invoke, stream=stream))
    chunks = Chunks()
    waiting = [asyncio.create_task(connection.request("invoke", params(), each)) for each in (None, chunks)]
    await asked.wait()
    await chunks.get()
    await connection.close()
    for each in waiting:
        with pytest.raises(Unreachable, match="the connection is closed"):
            await each
    with pytest.raises(Unreachable, match="the connection is closed"):
        await connection.request("invoke", params())
    await connection.close()


async def test_a_request_before_the_start_is_refused():
    connection = open_transport(descriptor("dns:///127.0.0.1:1"))
    with pytest.raises(Unreachable, match="the connection is closed"):
        await connection.request("health", b"{}")


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_cancelled_request_is_cancelled_with_its_message(serve, connect, streamed):
    """By the message anyio knows a cancellation of its own."""
    asked = asyncio.Event()

    async def invoke(*_):
        asked.set()
        await asyncio.sleep(60)

    async def stream(*_):
        await invoke()
        yield b""

    connection = await connect(await serve(invoke=invoke, stream=stream))
    for until in (lambda: asyncio.sleep(0), asked.wait):
        asking = asyncio.create_task(connection.request("invoke", params(), Chunks() if streamed else None))
        await until()
        asking.cancel("by the test")
        with pytest.raises(asyncio.CancelledError, match="by the test"):
            await asking


async def test_a_server_that_was_started_again_is_found(serve, connect):
    server = await serve()
    connection = await connect(server)
    assert (await connection.request("invoke", params())).ok
    await server.stop()
    with pytest.raises(Unreachable):
        await connection.request("invoke", params())
    await serve(port=server.port)
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await connection.request("invoke", params(n=1))).result == {"n": 1}
                break
            except Unreachable:
                await asyncio.sleep(0.05)


async def test_a_socket_of_this_host(connect, tmp_path, serve):
    await serve(address=f"unix:{tmp_path}/s")
    connection = await connect(f"unix:{tmp_path}/s")
    assert (await connection.request("health", b"{}")).result == {"status": "ok"}
    assert connection.endpoints == ()


@pytest.mark.parametrize(
    "health", [b"\x08\x02", b"", b"\x08\x00", b"\x12\x01"], ids=["not", "none", "unknown", "other"]
)
async def test_a_server_that_is_not_serving_is_not_mounted(serve, session, health):
    async def answer(_request, _context):
        return health

    server = await serve(health=answer)
    with pytest.raises(Unreachable, match="its health is not SERVING"):
        await session.mount("/mnt/tools", descriptor(server.target))


async def test_a_pending_reply_makes_system_calls_over_grpc(serve, session):
    async def invoke(request, _context):
        asked = params_of(request)
        if "resume" in asked:
            return ok(asked["resume"])
        return message(pending={"syscalls": [{"name": "mounts", "args": {}}], "state": [1, None]})

    server = await serve(invoke=invoke, describe=_described(capabilities=["sys:mounts"]))

    async def allow(_event):
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow, priority=1)
    await session.mount("/mnt/tools", descriptor(server.target, capabilities=["sys:mounts"]))
    resume = await session.invoke(M, "x", {})
    assert resume["state"] == [1, None]
    assert resume["results"][0]["result"][0]["path"] == M


def _described(**fields):
    async def describe(_request, _context):
        return ok({**DESCRIPTION, "outputs": fields.get("inputs", {}), **fields})

    return describe


STATUSES = {
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.UNKNOWN: "internal",
    grpc.StatusCode.INVALID_ARGUMENT: "bad_request",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.NOT_FOUND: "unsupported_op",
    grpc.StatusCode.ALREADY_EXISTS: "internal",
    grpc.StatusCode.PERMISSION_DENIED: "forbidden",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "unreachable",
    grpc.StatusCode.FAILED_PRECONDITION: "bad_request",
    grpc.StatusCode.ABORTED: "internal",
    grpc.StatusCode.OUT_OF_RANGE: "bad_request",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported_op",
    grpc.StatusCode.INTERNAL: "internal",
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.DATA_LOSS: "internal",
    grpc.StatusCode.UNAUTHENTICATED: "forbidden",
}


@pytest.mark.parametrize(("status", "code"), STATUSES.items(), ids=[status.name for status in STATUSES])
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_each_status_has_a_code(serve, connect, status, code, streamed):
    async def invoke(_request, context):
        await context.abort(status, "because " + "x" * 5000)

    async def stream(request, context):
        yield message(chunk=1)
        await invoke(request, context)

    connection = await connect(await serve(invoke=invoke, stream=stream))
    with pytest.raises(KernelError) as raised:
        await connection.request("invoke", params(), Chunks() if streamed else None)
    assert raised.value.code == code
    assert raised.value.details["grpc_status"] == status.name
    assert "because xxx" in raised.value.message
    assert len(raised.value.message) < 1200


async def test_a_policy_can_forbid_as_for_any_module(serve, session):
    async def deny(_event):
        return {"decision": "deny", "reason": "no"}

    server = await serve()
    await session.mount("/mnt/tools", descriptor(server.target))
    await session.register_hook("policy:request", deny, priority=1)
    with pytest.raises(Forbidden):
        await session.invoke(M, "good", {})
    assert server.requests == []


async def test_a_server_without_the_service_is_refused_with_its_status(serve, session):
    server = await serve(services=())
    with pytest.raises(KernelError) as raised:
        await session.mount("/mnt/tools", descriptor(server.target))
    assert raised.value.code == "unsupported_op"
    assert raised.value.details["grpc_status"] == "UNIMPLEMENTED"
