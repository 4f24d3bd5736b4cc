"""A module of the kit over HTTP: real ASGI servers, the real kernel, and single requests."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from tests.module_kit.conftest import EVERYTHING
from tests.module_kit.everything import app, module

from amplifier_core import BadRequest, ModuleDescriptor, Timeout
from amplifier_core.testing import check_module
from amplifier_module import Module

PATH = "/mnt/orchestrators/everything"
MIB = 1 << 20


@pytest.fixture(params=["uvicorn", "hypercorn"])
def url(request, need_import):
    """Serve the module with a real server, in a process of its own."""
    need_import(request.param)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        command = {
            "uvicorn": [sys.executable, str(EVERYTHING), "asgi", str(fd)],
            "hypercorn": [sys.executable, "-m", "hypercorn", "--bind", f"fd://{fd}", "everything:app"],
        }[request.param]
        with subprocess.Popen(
            command, cwd=EVERYTHING.parent, pass_fds=(fd,), stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            yield f"http://127.0.0.1:{port}/any/where"
            server.terminate()
            server.communicate(timeout=20)


@pytest.fixture
def described(url):
    return ModuleDescriptor.from_mapping(module.descriptor(url))


@pytest.fixture
async def everything(session, described, approve):
    await session.register_hook("policy:request", approve, priority=1)
    await session.mount("/mnt/orchestrators", described)

    async def invoke(op, args=None, **options):
        return await session.invoke(PATH, op, args or {}, **options)

    return invoke


async def test_it_conforms(described):
    examples: dict = {"count": {"text": "a b"}, "stream.async": {"to": 3}, "steps": {"paths": ["/mnt/tools/x"]}}
    checks = await check_module(described, examples)
    assert [check for check in checks if check.problem] == []


async def test_calls_chunks_errors_and_system_calls(session, everything, events):
    assert await everything("count", {"text": "a b"}) == {"words": 2}
    with pytest.raises(BadRequest, match="args.text: expected a value, got nothing"):
        await everything("count")
    for op in ("stream", "stream.async"):
        async with session.stream(PATH, op, {"to": 3}) as stream:
            assert [chunk["n"] async for chunk in stream] == [1, 2, 3]
        assert await stream.result() == 3
    for op in ("steps", "steps.stateless"):
        async with session.stream(PATH, op, {"paths": ["/mnt/tools/x"]}) as stream:
            assert [chunk async for chunk in stream] == ["start", "together"]
        assert await stream.result() == ["bad_request", "bad_request"]
    assert len(events("kit:step")) == 4


async def test_many_at_once(everything):
    assert await asyncio.gather(*(everything("echo", {"value": n}) for n in range(100))) == list(range(100))


async def test_a_closed_connection_cancels(everything, tmp_path):
    for op in ("nap", "wait", "stream"):
        with pytest.raises(Timeout):
            await everything(op, {"to": 10**9, "pause": 0.01} if op == "stream" else {"seconds": 30}, timeout=0.3)
    assert await everything("count", {"text": ""}) == {"words": 0}


def post(url, body=b"{}", method="POST"):
    request = urllib.request.Request(url, body, {"x-request-id": "abc"}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, dict(response.headers), json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


def test_single_requests(url):
    status, headers, health = post(f"{url}/health")
    assert (status, health) == (200, {"status": "ok"})
    assert {name.lower(): value for name, value in headers.items()}["x-request-id"] == "abc"
    assert post(f"{url}/describe")[2] == json.loads(json.dumps(module.describe()))
    assert post(f"{url}/invoke", b'{"op":"echo","args":{"value":1}}')[2] == {"ok": True, "result": 1}
    assert post(f"{url}/invoke", b'{"op":')[2]["error"]["message"] == "params: input data was truncated"
    assert post(f"{url}/dance")[0] == 404
    assert post(f"{url}/health", None, "GET")[0] == 405


class Peer:
    """The server's side of one request, without a server: what it says is decided message by message."""

    def __init__(self, path="/invoke", body=b"{}", headers=(), *, more=False):
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        self.incoming: asyncio.Queue = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})
        self.sent: list = []
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def send(self, message):
        await self.may_send.wait()
        self.sent.append(message)

    async def ask(self, application=app):
        await application(self.scope, self.incoming.get, self.send)
        return self.sent[0]["status"] if self.sent else None


async def test_a_body_beyond_the_bound_is_not_read():
    assert await Peer(headers=[(b"content-length", b"%d" % (33 * MIB))]).ask() == 413
    peer = Peer(body=b"x" * 20 * MIB, more=True)
    peer.incoming.put_nowait({"type": "http.request", "body": b"x" * 20 * MIB, "more_body": True})
    assert await peer.ask() == 413


async def test_a_caller_that_leaves_before_its_end_is_not_answered():
    peer = Peer(more=True)
    peer.incoming.put_nowait({"type": "http.disconnect"})
    assert await peer.ask() is None


async def test_a_caller_that_leaves_is_a_cancel():
    for op in ("nap", "wait"):
        peer = Peer(body=json.dumps({"op": op, "args": {"seconds": 60}}).encode())
        peer.incoming.put_nowait({"type": "http.request"})  # says nothing
        peer.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(peer.ask(), 5)
        assert b"cancelled" in peer.sent[-1]["body"]


async def test_a_caller_that_leaves_with_its_reply_is_no_cancel():
    peer = Peer(body=b'{"op":"echo","args":{"value":1}}')
    peer.may_send.clear()
    asking = asyncio.create_task(peer.ask())
    await asyncio.wait([asking], timeout=0.3)
    peer.incoming.put_nowait({"type": "http.disconnect"})
    await asyncio.wait([asking], timeout=0.1)
    peer.may_send.set()
    await asking
    assert peer.sent[-1]["body"] == b'{"ok":true,"result":1}'


async def test_a_server_that_says_so_in_send_is_a_cancel():
    peer = Peer(body=b'{"op":"stream","args":{"to":1000000000}}')

    async def gone(message):
        raise OSError("the caller is gone")

    peer.send = gone  # type: ignore[method-assign]
    await asyncio.wait_for(peer.ask(), 5)


async def test_a_server_that_ends_the_request_is_a_cancel():
    peer = Peer(body=b'{"op":"nap","args":{"seconds":60}}')
    asking = asyncio.create_task(peer.ask())
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert asking.cancelled()


@pytest.mark.parametrize("op", ["stream", "stream.async"])
async def test_a_function_waits_while_the_caller_does_not_read(op):
    peer = Peer(body=json.dumps({"op": op, "args": {"to": 40, "size": MIB // 8}}).encode())
    peer.may_send.clear()
    asking = asyncio.create_task(peer.ask())
    done, _ = await asyncio.wait([asking], timeout=0.3)
    assert not done
    peer.may_send.set()
    await asking
    lines = [json.loads(message["body"]) for message in peer.sent[1:]]
    assert [line["chunk"]["n"] for line in lines[:-1]] == list(range(1, 41))
    assert lines[-1] == {"ok": True, "result": 40}


@pytest.mark.parametrize("op", ["stream", "stream.async"])
async def test_a_function_that_waits_for_the_caller_can_be_cancelled(op):
    peer = Peer(body=json.dumps({"op": op, "args": {"to": 40, "size": MIB // 8}}).encode())
    peer.may_send.clear()
    asking = asyncio.create_task(peer.ask())
    await asyncio.wait([asking], timeout=0.3)
    peer.incoming.put_nowait({"type": "http.disconnect"})
    await asyncio.wait([asking], timeout=0.1)
    peer.may_send.set()
    await asyncio.wait_for(asking, 5)
    assert b"cancelled" in peer.sent[-1]["body"]


async def test_chunks_that_nobody_takes_have_a_bound():
    args = {"to": 100, "size": MIB, "drain": False}
    peer = Peer(body=json.dumps({"op": "stream.async", "args": args}).encode())
    await peer.ask()
    assert b"bytes of chunks wait: await context.drain() between them" in peer.sent[-1]["body"]


async def test_the_results_of_calls_are_held_to_what_was_asked():
    peer = Peer(body=b'{"op":"heap","args":{"size":1}}')
    await peer.ask()
    state = json.loads(peer.sent[1]["body"])["pending"]["state"]
    for op, told in (("heap", state), ("relay", {"run": "f" * 32}), ("heap", [1])):
        resume = {"state": told, "results": []}
        peer = Peer(body=json.dumps({"op": op, "args": {"size": 1}, "resume": resume}).encode())
        await peer.ask()
        error = json.loads(peer.sent[1]["body"])["error"]
        assert error["code"] == ("interrupted" if op == "relay" else "bad_request")


async def ask(op, args, **more):
    peer = Peer(body=json.dumps({"op": op, "args": args, **more}).encode())
    await peer.ask()
    return json.loads(peer.sent[1]["body"])


async def test_a_waiting_run_wants_as_many_results_as_it_asked_for():
    reply = await ask("relay", {"path": "/mnt/tools/x", "op": "y", "args": {}})
    resume = {"state": reply["pending"]["state"], "results": []}
    assert (await ask("relay", {}, resume=resume))["error"]["message"] == "resume.results: expected 1, got 0"
    assert (await ask("relay", {}, resume=resume))["error"]["code"] == "interrupted"


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"ok": False}, {"code": "internal", "message": "a system call failed without an error"}),
        ({"ok": 1}, {"code": "bad_request", "message": "resume.results.ok: expected bool, got int"}),
    ],
)
async def test_results_that_are_none_are_errors(result, error):
    reply = await ask("relay", {"path": "/mnt/tools/x", "op": "y", "args": {}})
    resume = {"state": reply["pending"]["state"], "results": [result]}
    told = (await ask("relay", {}, resume=resume))["error"]
    assert {name: told[name] for name in error} == error


async def test_a_run_that_nobody_resumes_is_given_up_after_its_deadline(capfd):
    relay = {"path": "/mnt/tools/x", "op": "y", "args": {}}
    reply = await ask("relay", relay, deadline_ms=1)
    await asyncio.sleep(1.2)
    resume = {"state": reply["pending"]["state"], "results": [{"ok": True, "result": 1}]}
    assert (await ask("relay", relay, resume=resume))["error"]["code"] == "interrupted"


async def test_of_too_many_waiting_runs_the_oldest_is_given_up():
    relay = {"path": "/mnt/tools/x", "op": "y", "args": {}}
    replies = [await ask("relay", relay) for _ in range(1025)]
    codes = []
    for reply in (replies[0], replies[-1]):
        resume = {"state": reply["pending"]["state"], "results": [{"ok": True, "result": 1}]}
        codes.append((await ask("relay", relay, resume=resume)).get("error", {}).get("code"))
    assert codes == ["interrupted", None]


async def test_more_calls_than_fit_into_one_reply_are_asked_for_in_turns():
    reply = await ask("together", {"count": 1001, "size": 1})
    assert len(reply["pending"]["syscalls"]) == 1000
    reply = await ask("together", {"count": 3, "size": 7 * MIB})
    assert len(reply["pending"]["syscalls"]) == 2
    results = [{"ok": True, "result": 1}] * 2
    reply = await ask("together", {}, resume={"state": reply["pending"]["state"], "results": results})
    assert len(reply["pending"]["syscalls"]) == 1


async def test_results_so_far_have_a_bound():
    reply = await ask("heap", {"size": 3})
    results = [{"ok": True, "result": "x" * 17 * MIB}]
    reply = await ask("heap", {"size": 3}, resume={"state": reply["pending"]["state"], "results": results})
    assert reply["error"]["code"] == "internal"
    assert "its results so far take" in reply["error"]["message"]


async def test_what_is_no_request_of_the_protocol_has_a_status():
    assert await Peer("/dance").ask() == 404
    peer = Peer()
    peer.scope["method"] = "GET"
    assert await peer.ask() == 405
    assert await Peer("/some/where/health").ask() == 200


async def test_of_a_server_whose_threads_are_all_stuck_stderr_says_so(capfd):
    stuck = Module("stuck", limits={"concurrency": 1})
    going_on = threading.Event()

    @stuck.op
    def hang() -> None:
        going_on.wait(30)

    peer = Peer(body=b'{"op":"hang"}')
    asking = asyncio.create_task(peer.ask(stuck.asgi()))
    await asyncio.wait([asking], timeout=0.2)
    peer.incoming.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(asking, 5)
    told = ""
    while "every thread is held by a function whose caller gave up" not in told:
        await asyncio.sleep(0.05)
        told += capfd.readouterr().err
    going_on.set()


async def test_a_server_that_starts_and_stops_is_answered():
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return told.pop(0)

    async def send(message):
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await app({"type": "websocket"}, receive, send)
    await app({"type": "unknown"}, receive, send)
    assert sent[2:] == ["websocket.close"]
