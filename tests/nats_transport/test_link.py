"""The kernel's end: one connection for all, and what becomes of calls that are given up, refused or kept waiting."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from tests.faults.of_nats import Worker, ok
from tests.nats_transport.objects import Echo
from tests.nats_transport.servers import descriptor
from tests.nats_transport.test_words import params, until

from amplifier_core import BadRequest, Internal, Unreachable
from amplifier_core.hookspecs import Chunks, Host
from amplifier_transport_nats import _link, _wire
from amplifier_transport_nats._client import Client
from amplifier_transport_nats._enforced import unenforced_there

LIMITED = """
authorization { users = [
  {user: kernel, password: k, permissions: {publish: ["allowed.>", "_INBOX.>"], subscribe: "_INBOX.>"}}
  {user: admin, password: a}
  {user: mute, password: m, permissions: {subscribe: {deny: "_INBOX.>"}}}
] }
"""


@pytest.fixture
def raw(nats, later, subject):
    """Start a worker of the test's own: ``await raw(bad)`` answers the op ``bad`` with that."""

    async def start(bad):
        worker = Worker(bad, subject)
        await worker.start(nats)
        later.push_async_callback(worker.stop)
        return worker

    return start


async def test_one_connection_serves_all_modules_of_a_place(nats, connect, later):
    one, two = await asyncio.gather(connect(nats), connect(nats, subject="other"))
    assert one._link is two._link
    host = Host()
    later.push_async_callback(host.close)
    other = await connect(nats, host=host)
    assert other._link is not one._link


async def test_a_late_answer_has_its_events_reported(raw, nats, connect):
    async def bad(worker, msg):
        await worker.say(msg, b"", "taken")
        worker.msg = msg

    worker = await raw(bad)
    heard = []
    connection = await connect(nats, notify=lambda *event: heard.append(event))
    for late, word in (
        (b'{"ok":true,"result":1,"events":[{"event":"a:b"}]}', ""),
        (b"{x", ""),
        (ok("x" * 300_000), ""),
        (b"", "sing"),
        (b'{"code":"cancelled","message":"m"}', "failed"),
    ):
        worker.told.clear()
        call = asyncio.ensure_future(connection.request("invoke", params("bad")))
        await until(lambda: worker.msg)
        await until(lambda: any(each.worker for each in connection._calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(worker.told.wait(), 20)
        assert connection._link._calls
        await worker.say(worker.msg, b'{"chunk":1}')
        await worker.say(worker.msg, late, word)
        await until(lambda: not connection._link._calls)
    ((event, data, error),) = heard
    assert (event, data["count"], data["first"]) == ("events:dropped", 1, {"event": "a:b"})
    assert error.code == "cancelled"


async def test_an_answer_that_waited_behind_unread_chunks_is_late_as_well(raw, nats, connect):
    async def bad(worker, msg):
        for _ in range(8):
            await worker.say(msg, b'{"chunk":"%b"}' % (b"x" * 100_000))
        await worker.say(msg, b'{"ok":true,"result":1,"events":[{"event":"a:b"}]}')

    await raw(bad)
    heard, chunks = [], Chunks()
    connection = await connect(nats, notify=lambda *event: heard.append(event))
    call = asyncio.ensure_future(connection.request("invoke", params("bad"), chunks))
    await until(lambda: chunks.ready)
    assert (await connection.request("invoke", params("echo", n=1))).ok  # what was sent before has come
    call.cancel()
    await asyncio.wait((call,))
    assert [data["first"] for _, data, _ in heard] == [{"event": "a:b"}]
    assert not connection._link._calls


async def test_who_takes_a_call_that_was_given_up_is_told(raw, nats, connect):
    async def bad(worker, msg):
        worker.msg = msg

    worker = await raw(bad)
    connection = await connect(nats)
    call = asyncio.ensure_future(connection.request("invoke", params("bad")))
    await until(lambda: worker.msg)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await worker.say(worker.msg, b"", "taken")
    await asyncio.wait_for(worker.told.wait(), 20)


async def test_calls_that_were_given_up_are_forgotten(raw, nats, connect, monkeypatch):
    monkeypatch.setattr(_link, "_GIVEN_UP_MAX", 2)
    monkeypatch.setattr(_wire, "SILENCE_SECONDS", 0.3)

    async def bad(worker, msg):
        worker.msg = msg

    worker = await raw(bad)
    connection = await connect(nats)
    for _ in range(4):
        worker.msg = None
        call = asyncio.ensure_future(connection.request("invoke", params("bad")))
        await until(lambda: worker.msg)
        call.cancel()
        await asyncio.wait((call,))
    assert len(connection._link._calls) == 2
    await until(lambda: not connection._link._calls)


async def test_a_call_that_is_never_answered_is_forgotten_at_last(raw, nats, connect, monkeypatch):
    monkeypatch.setattr("amplifier_transport_nats._call._GIVEN_UP_SECONDS", 0.1)

    async def bad(worker, msg):
        worker.msg = msg

    worker = await raw(bad)
    connection = await connect(nats)
    call = asyncio.ensure_future(connection.request("invoke", params("bad")))
    await until(lambda: worker.msg)
    call.cancel()
    await asyncio.wait((call,))
    await until(lambda: not connection._link._calls)


async def test_a_worker_may_refuse_before_it_has_read_all(raw, nats, connect):
    async def bad(worker, msg):
        await worker.say(msg, b'{"code":"bad_request","message":"too long"}', "failed")

    await raw(bad)
    connection = await connect(nats)
    with pytest.raises(BadRequest, match="too long"):
        await connection.request("invoke", params("bad", text="x" * 3_000_000))


async def test_a_worker_that_takes_no_more_is_waited_for(raw, nats, connect):
    async def bad(worker, msg):
        await worker.say(msg, b"", "taken")
        await until(lambda: len(worker.parts) == 6)
        await asyncio.sleep(0.2)
        assert len(worker.parts) == 6  # with the first one, 1.75 MiB
        await worker.say(msg, b"", "read 900000")
        await until(lambda: len(worker.parts) > 8)
        await worker.say(msg, ok("enough"))

    await raw(bad)
    connection = await connect(nats)
    assert (await connection.request("invoke", params("bad", text="x" * 20_000_000))).result == "enough"


async def test_more_than_anybody_reads_is_refused(raw, nats, connect):
    async def bad(worker, msg):
        for _ in range(40):
            await worker.say(msg, b'{"chunk":"%b"}' % (b"x" * 200_000))
        await worker.say(msg, ok(1))

    worker = await raw(bad)
    connection = await connect(nats)
    with pytest.raises(Internal, match="more than 2097152 bytes that nobody had read"):
        await connection.request("invoke", params("bad"), Chunks())
    await asyncio.wait_for(worker.told.wait(), 20)


async def test_a_call_survives_a_loop_that_was_held(raw, nats, connect, monkeypatch):
    monkeypatch.setattr(_wire, "SILENCE_SECONDS", 1.0)

    async def bad(worker, msg):
        await worker.say(msg, b"", "taken")
        time.sleep(2)
        await worker.say(msg, ok(1))

    await raw(bad)
    connection = await connect(nats)
    assert (await connection.request("invoke", params("bad"))).result == 1


@pytest.mark.parametrize("limits", [{}, {"idle_ms": 20_000}])
async def test_what_a_worker_had_to_drop_is_counted(raw, nats, session, subject, limits):
    async def bad(worker, msg):
        await worker.client.publish(msg.reply, ok(1), "", {"Amplifier-Dropped": "3"})

    await raw(bad)
    await session.mount("/mnt/tools", descriptor(nats, subject=subject, limits=limits))
    stream = session.stream("/mnt/tools/m", "bad", {})
    assert [chunk async for chunk in stream] == []
    assert (await stream.result(), stream.dropped) == (1, 3)


async def test_what_the_server_forbids_fails_at_once(server, connect, tmp_path):
    nats = server(config=LIMITED).start()
    for name in ("kernel", "mute"):
        (tmp_path / name).write_text(json.dumps({"user": name, "password": name[0]}))
    connection = await connect(nats, credentials=str(tmp_path / "kernel"), subject="Elsewhere")
    other = await connect(nats, credentials=str(tmp_path / "kernel"), subject="allowed.m")
    worker = Worker(lambda *_: asyncio.sleep(0), "allowed.m")
    await worker.start(nats, user="admin", password="a")
    late = asyncio.ensure_future(other.request("invoke", params("bad")))
    await until(lambda: other._calls)
    with pytest.raises(Unreachable, match="permissions violation for publish"):  # and not that nobody says anything
        await connection.request("invoke", params())
    late.cancel()
    await asyncio.wait((late,))
    await worker.stop()
    with pytest.raises(Unreachable, match="permissions violation for subscription"):
        await connect(nats, credentials=str(tmp_path / "mute"), host=Host())


async def test_a_loop_that_writes_much_waits_without_losing_a_cancellation(nats, serve, connect):
    await serve(nats, Echo())
    connection = await connect(nats)
    client = await connection._link.open()
    await asyncio.gather(*(client.send("nobody", b"x" * 900_000) for _ in range(8)))
    assert (await connection.request("invoke", params(n=1))).result == {"n": 1}
    with pytest.raises(Unreachable, match="maximum payload"):
        await client.send("nobody", b"x" * 2_000_000)


async def test_after_the_end_nothing_is_sent(nats, connect):
    connection = await connect(nats)
    client = await connection._link.open()
    await connection.close()
    with pytest.raises(Unreachable, match="the module was unmounted"):
        await connection.request("invoke", params())
    await connection._link.close()
    with pytest.raises(Unreachable, match="the connection to NATS was lost"):
        await connection._link.publish("s", b"")
    with pytest.raises(Unreachable, match="the connection to NATS was lost"):
        await client.send("s", b"")
    connection._link.tell("s", {})
    client.tell("s", {})


async def test_a_connection_that_ends_unheard_is_made_again(nats, serve, connect):
    module = Echo()
    await serve(nats, module)
    connection = await connect(nats)
    client = await connection._link.open()
    client._lost = lambda _: None  # as where nats-py fails in its own end
    call = asyncio.ensure_future(connection.request("invoke", params("wait")))
    await until(lambda: module.met)
    await client.close()
    with pytest.raises(Unreachable, match="the connection to NATS was lost"):
        await call
    client = await connection._link.open()
    client._lost = lambda _: None
    await client.close()
    assert (await connection.request("invoke", params(n=1))).result == {"n": 1}


async def test_closing_while_it_connects(connect, nats, later):
    host = Host()
    opening = asyncio.ensure_future(connect(nats, host=host))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await host.close()
    with pytest.raises((Unreachable, asyncio.CancelledError)):
        await opening


async def test_a_process_that_is_forked_has_no_copy_of_the_socket(nats, connect):
    connection = await connect(nats)
    client = await connection._link.open()
    number = client._transport._bare_io_writer.get_extra_info("socket").fileno()
    read, write = os.pipe()
    if not (pid := os.fork()):  # pragma: no cover - the child
        os.write(write, bytes(Path(f"/proc/self/fd/{number}").readlink()))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"/dev/null"
    os.close(read)
    os.close(write)


async def test_in_a_fork_the_socket_is_replaced(nats, connect):
    Client(encrypted=False, lost=lambda _: None, heard=lambda _: None).after_fork()
    connection = await connect(nats, host=(host := Host()))
    client = await connection._link.open()
    number = client._transport._bare_io_writer.get_extra_info("socket").fileno()
    client.after_fork()  # as the child does
    assert str(Path(f"/proc/self/fd/{number}").readlink()) == "/dev/null"
    await host.close()


async def test_what_does_not_end_is_ended_with_the_connection(nats, connect):
    connection = await connect(nats, host=(host := Host()))
    client = await connection._link.open()
    client.do(asyncio.sleep(60))
    await host.close()


def test_a_failure_loses_details_that_cannot_be_sent():
    for details in ({"a": {1}}, {"a": "x" * 70_000}):
        assert _wire.failure_of(_wire.failure("internal", "m", details)) == ("internal", "m", {})


WORDS = ("fs:read:/srv", "net:connect:*")
BESIDE = {
    "nothing": (b'{"ok":true}', WORDS),
    "what does not fit": (b'{"host":{"unenforced":5}}', WORDS),
    "no isolation": (b'{"host":{"isolation":null,"unenforced":[]}}', WORDS),
    "all": (b'{"host":{"isolation":"bwrap","unenforced":[]}}', ()),
    "a part": (b'{"host":{"isolation":"bwrap","unenforced":["net:connect:*"]}}', ("net:connect:*",)),
    "an area": (b'{"host":{"isolation":"bwrap","unenforced":["isolation.files"]}}', WORDS),
    "more": (b'{"host":{"isolation":"bwrap","granted":["fs:read:/"]}}', WORDS),
}


@pytest.mark.parametrize(("text", "unenforced"), BESIDE.values(), ids=BESIDE)
def test_what_a_host_says_that_it_enforces(text, unenforced):
    assert unenforced_there(text, WORDS) == unenforced
