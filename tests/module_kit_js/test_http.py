"""A module of the kit for Node over HTTP: behind `node:http`, under the real kernel and with single requests."""

import http.client
import json
import socket
import subprocess
import threading
import time

import pytest
from tests.module_kit.test_asgi import (
    MIB,
    everything,
    post,
    test_a_closed_connection_cancels,
    test_calls_chunks_errors_and_system_calls,
    test_it_conforms,
    test_many_at_once,
)

from amplifier_core import ModuleDescriptor

__all__ = [
    "everything",
    "test_a_closed_connection_cancels",
    "test_calls_chunks_errors_and_system_calls",
    "test_it_conforms",
    "test_many_at_once",
]


pytestmark = pytest.mark.newest  # it is the same on each Python


@pytest.fixture
def server(command):
    """Serve the module with `node:http`, in a process of its own; give its address, and what stops it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        words = [*command, "http", str(fd)]
        with subprocess.Popen(words, pass_fds=(fd,), stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            end_of_test = threading.Timer(60, process.kill)
            end_of_test.start()
            yield ("127.0.0.1", port), process
            process.terminate()
            process.communicate(timeout=20)
            end_of_test.cancel()


@pytest.fixture
def url(server):
    (host, port), _ = server
    return f"http://{host}:{port}/any/where"


@pytest.fixture
def described(command, url):
    told = subprocess.run([*command, f"--descriptor={url}"], capture_output=True, check=True).stdout
    return ModuleDescriptor.from_mapping(json.loads(told))


@pytest.fixture
def connection(server):
    """A bare connection."""
    with socket.create_connection(server[0], timeout=30) as connection:
        yield connection


def request(op, args=None, **more):
    body = json.dumps({"op": op, "args": args or {}, **more}).encode()
    return b"POST /invoke HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def read(connection):
    """Read a response to its end, and give its lines as JSON."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, [json.loads(line) for line in response.read().splitlines()]


def test_single_requests(url):
    status, headers, health = post(f"{url}/health")
    assert (status, health) == (200, {"status": "ok"})
    assert (headers["x-request-id"], headers["content-type"]) == ("abc", "application/json")
    described = post(f"{url}/describe?x=/y")[2]
    assert described["name"] == "everything"
    assert described["inputs"]["count"]["required"] == ["text"]
    assert post(f"{url}/invoke", b'{"op":"echo","args":{"value":1}}')[2] == {"ok": True, "result": 1}
    assert post(f"{url}/invoke", b'{"op":')[2]["error"]["message"] == "params: Unexpected end of JSON input"
    assert post(f"{url}/invoke", b"")[2]["error"]["message"] == "params.op: expected a value, got nothing"
    assert post(f"{url}/dance")[0] == 404
    assert post(f"{url}/health", None, "GET")[0] == 405


def test_a_stream_is_lines_and_ends_with_the_reply(connection):
    connection.sendall(request("stream", {"to": 2}))
    status, lines = read(connection)
    assert status == 200
    assert lines == [{"chunk": {"n": 1, "pad": ""}}, {"chunk": {"n": 2, "pad": ""}}, {"ok": True, "result": 2}]


@pytest.mark.parametrize(
    "head", [b"content-length: %d\r\n\r\n" % (33 * MIB), b"transfer-encoding: chunked\r\n\r\n2100000\r\n"]
)
def test_a_body_beyond_the_bound_is_not_read(connection, head):
    connection.sendall(b"POST /invoke HTTP/1.1\r\nhost: x\r\n" + head)
    if b"chunked" in head:
        connection.sendall(b"x" * 33 * MIB)
    status, [told] = read(connection)
    assert (status, told["error"]["message"]) == (413, "expected at most 33,554,432 bytes")
    assert connection.recv(1) == b""


def test_a_caller_that_leaves_before_its_end_is_not_answered(server, connection):
    connection.sendall(b"POST /invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{}")
    connection.close()
    assert post(f"http://127.0.0.1:{server[0][1]}/health")[0] == 200


def test_a_caller_that_leaves_is_a_cancel(server, connection):
    _, process = server
    connection.sendall(request("wait", {"seconds": 60}) + request("health"))
    with socket.create_connection(server[0], timeout=30) as other:
        other.sendall(request("echo"))
        read(other)
    connection.close()
    assert process.stdout.readline() == b"told\n"


def test_a_function_waits_while_the_caller_does_not_read(server, connection):
    """Its process stays small, and the others are answered."""
    connection.sendall(request("stream", {"to": 200, "size": MIB}))
    with socket.create_connection(server[0], timeout=30) as other:
        other.sendall(request("nap", {"seconds": 0.5}))
        assert read(other)[1][0]["ok"]
    _, lines = read(connection)
    assert [line["chunk"]["n"] for line in lines[:-1]] == list(range(1, 201))
    assert lines[-1] == {"ok": True, "result": 200}


def test_a_function_that_waits_for_the_caller_can_be_cancelled(server, connection):
    connection.sendall(request("stream", {"to": 10**9, "size": MIB}))
    connection.recv(1)
    connection.close()
    with socket.create_connection(server[0], timeout=30) as other:
        other.sendall(request("nap", {"seconds": 0.1}))
        assert read(other)[1][0]["ok"]


def test_chunks_that_nobody_takes_have_a_bound(connection):
    connection.sendall(request("stream", {"to": 100, "size": MIB, "drain": False}))
    _, lines = read(connection)
    assert "bytes of chunks wait: await context.chunk(…)" in lines[-1]["error"]["message"]


@pytest.fixture
def ask(server):
    """Ask for one reply after the other, on one connection."""
    with socket.create_connection(server[0], timeout=30) as connection:

        def send(op, args, **more):
            connection.sendall(request(op, args, **more))
            _, [reply] = read(connection)
            return reply

        yield send


RELAY = {"path": "/mnt/tools/x", "op": "y", "args": {}}


def results(reply, *results):
    return {"state": reply["pending"]["state"], "results": list(results)}


def test_a_stateless_state_is_what_the_kit_for_python_makes(ask):
    reply = ask("heap", {"size": 2})
    reply = ask("heap", {"size": 2}, resume=results(reply, {"ok": True, "result": 7}))
    state = reply["pending"]["state"]
    assert sorted(state) == ["asked", "chunks", "done", "events"]
    assert [result for _, result in state["done"]] == [{"ok": True, "result": 7}]
    reply = ask("heap", {"size": 2}, resume=results(reply, {"ok": True, "result": 8}))
    assert reply == {"ok": True, "result": [7, 8]}


def test_the_results_of_calls_are_held_to_what_was_asked(ask):
    reply = ask("heap", {"size": 1})
    for op, told, code in (
        ("heap", reply["pending"]["state"], "bad_request"),
        ("relay", {"run": "f" * 32}, "interrupted"),
        ("heap", [1], "bad_request"),
    ):
        assert (
            ask(op, {"size": 1} if op == "heap" else RELAY, resume={"state": told, "results": []})["error"]["code"]
            == code
        )


def test_a_waiting_run_wants_as_many_results_as_it_asked_for(ask):
    resume = results(ask("relay", RELAY))
    assert ask("relay", RELAY, resume=resume)["error"]["message"] == "resume.results: expected 1, got 0"
    assert ask("relay", RELAY, resume=resume)["error"]["code"] == "interrupted"


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"ok": False}, {"code": "internal", "message": "a system call failed without an error"}),
        (
            {"ok": False, "error": {"code": "own", "message": "text", "details": None}},
            {"code": "own", "message": "text"},
        ),
        ({"ok": 1}, {"code": "bad_request", "message": "params.resume.results[0].ok: expected boolean, got number"}),
    ],
)
def test_results_that_are_none_are_errors(ask, result, error):
    told = ask("relay", RELAY, resume=results(ask("relay", RELAY), result))["error"]
    assert {name: told[name] for name in error} == error


def test_a_run_that_nobody_resumes_is_given_up_after_its_deadline(ask):
    resume = results(ask("relay", RELAY, deadline_ms=1), {"ok": True, "result": 1})
    time.sleep(1.2)
    assert ask("relay", RELAY, resume=resume)["error"]["code"] == "interrupted"


def test_of_too_many_waiting_runs_the_oldest_is_given_up(ask):
    replies = [ask("relay", RELAY) for _ in range(1025)]
    told = [ask("relay", RELAY, resume=results(each, {"ok": True, "result": 1})) for each in (replies[0], replies[-1])]
    assert [reply.get("error", {}).get("code") for reply in told] == ["interrupted", None]


def test_more_calls_than_fit_into_one_reply_are_asked_for_in_turns(ask):
    assert len(ask("together", {"count": 1001, "size": 1})["pending"]["syscalls"]) == 1000
    reply = ask("together", {"count": 3, "size": 7 * MIB})
    assert len(reply["pending"]["syscalls"]) == 2
    reply = ask("together", {}, resume=results(reply, *[{"ok": True, "result": 1}] * 2))
    assert len(reply["pending"]["syscalls"]) == 1


def test_results_so_far_have_a_bound(ask):
    reply = ask("heap", {"size": 3})
    reply = ask("heap", {"size": 3}, resume=results(reply, {"ok": True, "result": "x" * 17 * MIB}))
    assert reply["error"]["code"] == "internal"
    assert "its results so far take" in reply["error"]["message"]
