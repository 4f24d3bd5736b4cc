"""The STDIO transport against real processes that behave, and some that do not."""

import asyncio
import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from tests.conftest import exits

from amplifier_core import Internal, ModuleDescriptor, Timeout, Unreachable
from amplifier_core.hookspecs import Host, Launch
from amplifier_core.hookspecs._chunks import ENOUGH
from amplifier_transport_stdio import open_transport
from amplifier_transport_stdio._correlator import CANCEL_GRACE
from amplifier_transport_stdio._process import Process

fcntl: Any = pytest.importorskip("fcntl") if os.name == "posix" else None

PROLOGUE = """
import json, os, sys, time, signal, subprocess
name = sys.argv[1]
def out(text):
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    while data:
        data = data[os.write(1, data):]
def reply(request, result):
    out(json.dumps({"id": request["id"], "ok": True, "result": result}) + "\\n")
def standard(request):
    if request["method"] == "health":
        reply(request, {"status": "ok"})
    elif request["method"] == "describe":
        told = {"name": name, "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
        reply(request, told)
    else:
        return False
    return True
def requests():
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request and not standard(request):
            yield request
"""


@pytest.fixture
def misbehaving(tmp_path):
    """Describe a module whose answers to invocations are the code given; `request` and `op` are there."""

    def describe(code, name="m", **fields):
        lines = "\n".join("    " + line for line in code.strip().splitlines())
        loop = f"for request in requests():\n    op = request.get('params', {{}}).get('op')\n{lines}\n"
        file = tmp_path / f"{name}.py"
        file.write_text(PROLOGUE + loop, encoding="utf-8")
        command = [sys.executable, str(file), name]
        return ModuleDescriptor.from_mapping(
            {
                "name": name,
                "kind": "tool",
                "capabilities": [],
                "transport": {"type": "stdio", "command": command},
                **fields,
            }
        )

    return describe


M = "/mnt/tools/m"


async def mounted(session, descriptor):
    await session.mount("/mnt/tools", descriptor, trusted=True)
    return session


GOOD = "reply(request, request['params']['args'])"


def either(bad):
    """Misbehave for the op `bad`, else echo."""
    lines = "\n".join("    " + line for line in bad.strip().splitlines())
    return f"if op == 'bad':\n{lines}\nelse:\n    {GOOD}"


async def test_the_tail_of_stderr_is_in_the_details(session, misbehaving):
    await mounted(session, misbehaving(either("os.write(2, b'x' * 20000 + b'the cause'); os._exit(1)")))
    with pytest.raises(Unreachable) as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["stderr"].endswith("the cause")
    assert len(caught.value.details["stderr"]) == 8192


async def test_a_module_that_ignores_a_cancel_is_killed_and_started_again(session, misbehaving, events):
    await mounted(session, misbehaving(either("time.sleep(60)")))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.1)
    assert await session.invoke(M, "good", {"n": 1}) == {"n": 1}  # it waits until that is decided
    assert len(events("module:start")) == 2


async def test_a_chunk_is_no_answer_to_a_cancel(session, misbehaving, events):
    chunk = "out(json.dumps({'id': request['id'], 'chunk': 1}) + '\\n')"
    await mounted(session, misbehaving(either(f"{chunk}\nsys.stdin.buffer.readline()\n{chunk}\ntime.sleep(60)")))
    async with session.stream(M, "bad", {}) as stream:
        await anext(stream)
    assert await session.invoke(M, "good", {"n": 1}, timeout=10) == {"n": 1}
    assert [exited["signal"] for exited in await exits(events)] == ["SIGKILL"]
    assert not events("module:noise")


async def test_what_is_in_flight_when_a_module_is_killed_is_told_why(session, misbehaving):
    await mounted(session, misbehaving(either("time.sleep(60)")))
    calls = [session.invoke(M, "bad", {}, timeout=timeout) for timeout in (0.2, 20)]
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, Timeout)
    assert str(second) == f"unreachable: {M}: the module was killed: it did not answer a cancel within 1 s"


async def test_four_megabytes_go_and_come(session, misbehaving):
    await mounted(session, misbehaving(GOOD))
    text = "ü" * 2 * 1024 * 1024
    for _ in range(2):  # the first one widens the pipes, and neither of them fits
        assert await session.invoke(M, "good", {"text": text}) == {"text": text}


async def test_many_large_requests_at_once_arrive_whole(session, misbehaving):
    await mounted(session, misbehaving(GOOD))
    texts = [chr(97 + n % 26) * 300_000 for n in range(20)]
    results = await asyncio.gather(*(session.invoke(M, "good", {"text": text}) for text in texts))
    assert [result["text"] for result in results] == texts


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_module_that_died_unnoticed_is_started_again_without_a_failure(session, misbehaving, streamed):
    await mounted(session, misbehaving(either("reply(request, os.getpid())")))
    pid = await session.invoke(M, "bad", {})
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)  # the loop must not see the exit before the call
    stream = session.stream(M, "good", {"n": 1})
    result = stream.result() if streamed else session.invoke(M, "good", {"n": 1})
    assert await result == {"n": 1}


async def test_a_module_that_closes_its_stdin_is_ended(session, misbehaving):
    closes = "os.close(0)\nreply(request, 1)\ntime.sleep(60)"
    await mounted(session, misbehaving(either(closes)))
    assert await session.invoke(M, "bad", {}) == 1
    calls = [session.invoke(M, "good", {"n": n}) for n in range(2)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {dict, Unreachable}
    assert await session.invoke(M, "good", {"n": 3}) == {"n": 3}


async def test_a_module_that_writes_while_it_dies_is_heard_to_the_end(session, misbehaving, events):
    answer = "reply(request, request['params']['args'])\nos._exit(0)"
    await mounted(session, misbehaving(either(answer)))
    for n in range(5):
        assert await session.invoke(M, "bad", {"n": n}) == {"n": n}
        while len(events("module:exit")) <= n:
            await asyncio.sleep(0)


async def test_a_reply_that_an_ended_module_left_in_its_pipe_is_heard(session, misbehaving, events):
    """The pipe is held back for a slow reader, so the reply is found when the process is."""
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for n in range(3):
    out(json.dumps({'id': request['id'], 'chunk': 'x' * 100000}) + '\\n')
signal.sigwait([signal.SIGUSR1])
reply(request, 'heard')
os._exit(0)
"""
    await mounted(session, misbehaving(code))
    async with asyncio.timeout(20), session.stream(M, "stream", {}) as stream:
        while stream._chunks._size < ENOUGH:
            await asyncio.sleep(0)
        os.kill(events("module:start")[0]["data"]["pid"], signal.SIGUSR1)
        while not events("module:exit"):
            await asyncio.sleep(0)
        assert len([chunk async for chunk in stream]) == 3
        assert await stream.result() == "heard"


async def test_without_pidfd_a_thread_waits(session, misbehaving, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    await mounted(session, misbehaving(either("os._exit(5)")))
    with pytest.raises(Unreachable, match="exit code 5"):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {"n": 1}) == {"n": 1}


WATCHED = pytest.mark.asyncio(loop_factories=["watched"])  # threads have read before the loop looks


@WATCHED
async def test_a_reply_that_comes_as_its_caller_gives_up_is_nobodys(session, misbehaving, events):
    """The loop comes to both in one turn, and to the caller first."""
    emits = "out(json.dumps({'id': request['id'], 'ok': True, 'result': {'n': 2}, 'events': [{}]}) + '\\n')"
    await mounted(session, misbehaving(emits))
    call = asyncio.create_task(session.invoke(M, "good", {"n": 1}))
    await asyncio.sleep(0)
    stdout = session._state.namespace.mounts[M].module.connection._current.child._tree.popen.stdout
    assert select.select([stdout], [], [], 10)[0]  # the module answers while the loop is busy
    asyncio.get_running_loop().call_soon(call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await session.invoke(M, "good", {"n": 2}) == {"n": 2}
    assert len(events("module:start")) == 1
    await session.unmount(M)
    assert not events("module:noise")
    assert [event["error"]["code"] for event in events("events:dropped")] == ["cancelled", "bad_request"]


EMITS = """
if op == 'late':
    out(json.dumps({'id': request['id'], 'chunk': 1}) + '\\n')
    sys.stdin.buffer.readline()  # the cancel
    emitted = [{'event': 'artifact:write', 'data': {'path': 'a'}}, {'event': 'my:event'}]
    out(json.dumps({'id': request['id'], 'ok': True, 'result': {}, 'events': emitted}) + '\\n')
else:
    reply(request, {})
"""


async def test_events_of_a_reply_that_comes_too_late_are_counted(session, misbehaving, events):
    await mounted(session, misbehaving(EMITS))
    stream = session.stream(M, "late", {})
    assert await anext(stream) == 1
    await stream.aclose()
    await session.invoke(M, "good", {})  # it waits until the cancelled one is answered
    (dropped,) = events("events:dropped")
    first = {"event": "artifact:write", "data": {"path": "a"}}
    assert (dropped["module"], dropped["data"]) == (M, {"count": 2, "first": first})
    assert dropped["error"]["code"] == "cancelled"
    assert dropped["session_id"] == session.session_id
    assert len(events("module:start")) == 1


async def test_a_cancel_that_nobody_can_be_told_of_ends_the_module(session, misbehaving, events):
    closes = "os.close(0)\nout(json.dumps({'id': request['id'], 'chunk': 1}) + '\\n')\ntime.sleep(60)"
    await mounted(session, misbehaving(either(closes)))
    stream = session.stream(M, "bad", {})
    assert await anext(stream) == 1
    await stream.aclose()
    assert await session.invoke(M, "good", {"n": 1}) == {"n": 1}
    assert len(events("module:start")) == 2


class Heard:
    def __init__(self):
        self.data = b""
        self.ended = asyncio.Event()

    def received(self, data):
        self.data += data

    def closed_stdout(self):
        pass

    async def taken(self):
        pass

    def exited(self):
        self.ended.set()


async def test_what_does_not_fit_into_the_pipe_waits_and_ends_with_the_process():
    heard = Heard()
    process = Process(Launch(command=("sleep", "60"), cwd="/", env=os.environ), heard, None)
    stdin = process._tree.popen.stdin
    assert stdin
    process.write(b"x" * fcntl.fcntl(stdin, fcntl.F_GETPIPE_SZ), now=True)
    for byte in (b"y", b"z"):
        process.write(byte, now=True)
    process.kill()
    await heard.ended.wait()


async def test_any_signal_has_a_name(session, misbehaving):
    await mounted(session, misbehaving(either("os.kill(os.getpid(), int(request['params']['args']['signal']))")))
    for number, name in ((15, "SIGTERM"), (34, "SIGRTMIN"), (40, "40")):
        with pytest.raises(Unreachable, match=f"killed by {name}") as caught:
            await session.invoke(M, "bad", {"signal": number})
        assert caught.value.details["signal"] == name


async def test_chunks_that_nobody_can_hold_are_dropped_and_counted(session, misbehaving):
    """While somebody else waits for the module its pipe is read on, whatever a slow reader has not read."""
    code = """
if op == 'flood':
    for n in range(200):
        out(json.dumps({'id': request['id'], 'chunk': 'x' * 100000}) + '\\n')
    reply(request, 'flooded')
    reply(first, 'waited')
else:
    first = request
"""
    await mounted(session, misbehaving(code))
    other = asyncio.create_task(session.invoke(M, "wait", {}))
    await asyncio.sleep(0)
    stream = session.stream(M, "flood", {})
    assert await anext(stream) == "x" * 100000
    assert await other == "waited"
    assert stream.dropped > 50
    assert await stream.result() == "flooded"


async def test_who_answers_a_cancel_behind_what_a_stalled_reader_has_not_read_lives_on(session, misbehaving, events):
    code = """
def chunks(of, count):
    for n in range(count):
        out(json.dumps({'id': of['id'], 'chunk': 'x' * 100000}) + '\\n')
if op == 'stall':
    stalled = request
    chunks(stalled, 3)
elif op == 'wait':
    chunks(request, 1)
    sys.stdin.buffer.readline()
    chunks(stalled, 2)
    reply(request, 'cancelled')
else:
    reply(stalled, 'stalled')
    reply(request, 'fine')
"""
    await mounted(session, misbehaving(code))
    async with asyncio.timeout(20), session.stream(M, "stall", {}) as stalled:
        while stalled._chunks._size < ENOUGH:
            await asyncio.sleep(0)
        async with session.stream(M, "wait", {}) as waiting:
            await anext(waiting)
        assert await session.invoke(M, "fine", {}) == "fine"
        assert len([chunk async for chunk in stalled]) == 5
        assert await stalled.result() == "stalled"
    assert not events("module:exit")


async def test_a_connection_that_was_closed_takes_no_request(tmp_path):
    transport = {"type": "stdio", "command": ["cat"]}
    fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
    host = Host()
    connection = open_transport(ModuleDescriptor.from_mapping(fields), lambda *_: None, host)
    await connection.start((), None)
    await connection.close()
    await connection.close()
    with pytest.raises(Unreachable, match="unmounted"):
        await connection.request("health", b"{}")
    await host.close()


async def test_the_next_call_waits_until_every_cancelled_one_is_decided(session, module, events):
    """One answers its cancel at once, the other never does."""
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    echo = "/mnt/tools/echo"
    calls = [session.invoke(echo, op, {"seconds": 30}, timeout=0.2) for op in ("deaf", "sleep")]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, Timeout)
    assert await session.invoke(echo, "echo", {"n": 1}, timeout=5) == {"n": 1}
    assert len(events("module:start")) == 2


async def test_who_cancels_in_the_grace_of_a_module_waits_for_nothing_and_nobody_longer(session, misbehaving, events):
    """The first invocation is cancelled twice; the second while it waits for what becomes of the first."""
    await mounted(session, misbehaving(either("time.sleep(60)")))
    began = time.monotonic()
    for op in ("bad", "good"):
        call = asyncio.create_task(session.invoke(M, op, {}))
        await asyncio.sleep(0)
        call.cancel()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not events("module:exit")
    third = asyncio.create_task(session.invoke(M, "good", {"n": 1}))
    while not events("module:exit"):
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < CANCEL_GRACE + 1  # and then it starts, however long that takes
    assert await third == {"n": 1}
    assert [event["error"]["code"] for event in events("module:invoke")[:2]] == ["cancelled"] * 2
    assert len(events("module:start")) == 2


async def test_a_request_that_waits_when_its_module_is_unmounted_starts_no_other_process(
    session, kernel, misbehaving, events
):
    await mounted(session, misbehaving(either("time.sleep(60)")))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.1)
    waiting = asyncio.create_task(session.invoke(M, "good", {}))
    await asyncio.sleep(0)
    await session.unmount(M)
    with pytest.raises(Unreachable, match="unmounted"):
        await waiting
    assert len(events("module:start")) == len(events("module:exit")) == 1


async def test_a_timeout_tells_what_may_explain_it(session, misbehaving):
    await mounted(session, misbehaving(either("sys.stderr.write('a hint'); sys.stderr.flush(); out('hello\\n')")))
    with pytest.raises(Timeout) as caught:
        await session.invoke(M, "bad", {}, timeout=0.3)
    assert caught.value.details["stderr"] == "a hint"
    assert caught.value.details["noise"] == {"count": 1, "first": "hello"}


@pytest.mark.parametrize("how", ["missing", "forbidden"])
async def test_where_pidfd_does_not_work_a_thread_waits(session, misbehaving, monkeypatch, how):
    def refuse(pid):
        raise OSError(38, "Function not implemented")

    if how == "missing":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    await mounted(session, misbehaving(either("os._exit(5)")))
    with pytest.raises(Unreachable, match="exit code 5"):
        await session.invoke(M, "bad", {})


@WATCHED
async def test_somebody_else_who_holds_the_pipes_keeps_nobody_waiting(session, misbehaving):
    """A process in a session of its own outlives the module, with its stdout and stderr."""
    sleeper = "subprocess.Popen(['sleep', '2'], start_new_session=True, env={})"
    await mounted(session, misbehaving(either(f"{sleeper}\nos._exit(4)")))
    began = time.monotonic()
    with pytest.raises(Unreachable, match="exit code 4"):
        await session.invoke(M, "bad", {})
    assert time.monotonic() - began < 1.5


def stdin_of(connection):
    return connection._current.child._tree.popen.stdin


async def test_a_module_that_ends_before_it_spoke_tells_its_story(session):
    """Its pipe is broken when the first request is written, each time."""
    command = ["sh", "-c", "exec <&-; echo why >&2; sleep 0.02; exit 3"]
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "command": command}}
    host = Host()
    connection = open_transport(ModuleDescriptor.from_mapping(descriptor), lambda *_: None, host)
    await connection.start((), None)
    for _ in range(2):
        poll = select.poll()
        poll.register(stdin_of(connection), select.POLLERR)
        assert poll.poll(10_000)
        with pytest.raises(Unreachable, match="the module went away: exit code 3") as caught:
            await connection.request("health", b"{}")
        assert caught.value.details["stderr"] == "why\n"
        await connection.begin()
    await connection.close()
    await host.close()


@pytest.mark.asyncio(loop_factories=["watched"])  # a thread may write at once
async def test_lines_that_wait_while_stdin_is_closed_are_dropped():
    reader = Mock(taken=AsyncMock())
    process = Process(Launch(command=("cat",), cwd="/", env=os.environ), reader, None)
    process.write(b"joined with others in the next turn of the loop\n", now=False)
    await process.close()
    assert not [call for call in reader.received.call_args_list if call.args != (b"",)]
    reader.exited.assert_called_once_with()


LARGE_CHUNK = "out(json.dumps({'id': request['id'], 'chunk': 'x' * 400_000}) + '\\n')\n"
SMALL_CHUNK = "out(json.dumps({'id': request['id'], 'chunk': 'small'}) + '\\n')\n"


async def test_large_and_small_lines_keep_their_order(session, misbehaving):
    many = f"for _ in range(3):\n    {LARGE_CHUNK.strip()}\n    {SMALL_CHUNK.strip()}\n"
    await mounted(session, misbehaving(f"{many}reply(request, 'y' * 400_000)"))
    async with session.stream(M, "x", {}) as stream:
        assert [chunk[0] + str(len(chunk)) async for chunk in stream] == ["x400000", "s5"] * 3
        assert len(await stream.result()) == 400_000


async def test_others_have_their_turn_while_a_large_reply_is_looked_at(session, misbehaving):
    await mounted(session, misbehaving("reply(request, [{'n': 'ж' * 3}] * 40_000 if op == 'large' else 1)"))
    call = asyncio.create_task(session.invoke(M, "large", {}))
    longest, last = 0.0, time.thread_time()
    while not call.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    assert len(await call) == 40_000
    assert longest < 0.2


@pytest.mark.parametrize("code", ["reply(request, 'y' * 400_000)\nos._exit(0)", "out('x' * 400_000)\nos._exit(3)"])
async def test_a_large_line_of_a_module_that_ends_is_taken_before_its_end_is_told(session, misbehaving, events, code):
    await mounted(session, misbehaving(code))
    if "exit(0)" in code:
        assert len(await session.invoke(M, "x", {})) == 400_000
    else:
        with pytest.raises(Unreachable, match="exit code 3"):
            await session.invoke(M, "x", {})
    while not events("module:exit"):
        await asyncio.sleep(0)


async def test_a_large_line_that_is_no_message_fails_its_request(session, misbehaving):
    lines = 'out(\'{"id":"%s","ok":true,"result":%s}\\n\' % (request[\'id\'], \'[\' * 400_000))'
    await mounted(session, misbehaving(either(lines)))
    with pytest.raises(Internal, match="broke its contract: nested more than 200 levels deep"):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {"n": 1}) == {"n": 1}


async def test_a_reply_whose_values_take_too_much_memory_is_refused(session, misbehaving):
    lines = 'out(\'{"ok":true,"result":[%s0],"id":"%s"}\\n\' % (\'[],\' * 300_000, request[\'id\']))'
    await mounted(session, misbehaving(either(lines), limits={"message_bytes": 2_000_000}))
    with pytest.raises(Internal, match="its values would take about"):
        await session.invoke(M, "bad", {})


BROKEN_REPLIES = {
    "a chunk too": "{'id': request['id'], 'ok': True, 'result': 1, 'chunk': 1}",
    "a chunk and an error": "{'id': request['id'], 'ok': False, 'error': {'code': 'x', 'message': 'y'}, 'chunk': 1}",
    "pending and a chunk": "{'id': request['id'], 'pending': {'syscalls': []}, 'chunk': 1}",
    "rows before": "{'ok': True, 'result': [{'id': id} for id in ids], 'x': float('nan'), 'id': request['id']}",
    "rows behind": "{'id': request['id'], 'ok': True, 'result': [{'id': id} for id in ids], 'x': float('nan')}",
    "many rows": "{'result': [{'id': id} for id in ids] * 20000, 'ok': float('nan'), 'id': request['id']}",
    "a list around it": "[{'result': [{'id': id} for id in ids], 'id': request['id']}]",
}


@pytest.mark.parametrize("broken", BROKEN_REPLIES.values(), ids=BROKEN_REPLIES)
async def test_a_broken_reply_fails_the_call_that_it_answers_and_no_other(session, misbehaving, broken):
    """The first two calls wait when the third is answered, and are answered after it."""
    code = f"""
waiting = globals().setdefault('waiting', [])
ids = [each['id'] for each in waiting] + ['r1']
if op == 'bad':
    out(json.dumps({broken}) + '\\n')
    for each in waiting:
        reply(each, each['params']['args'])
else:
    waiting.append(request)
"""
    await mounted(session, misbehaving(code))
    waiting = [asyncio.create_task(session.invoke(M, "good", {"n": n}, timeout=20)) for n in range(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    with pytest.raises(Internal, match="broke its contract"):
        await session.invoke(M, "bad", {}, timeout=20)
    assert await asyncio.gather(*waiting) == [{"n": 0}, {"n": 1}]


async def test_a_broken_answer_to_a_cancel_is_an_answer(session, misbehaving, events):
    bad = 'sys.stdin.buffer.readline()\nout(\'{"id":"%s","ok":NaN}\\n\' % request[\'id\'])'
    await mounted(session, misbehaving(either(bad)))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.1)
    assert await session.invoke(M, "good", {"n": 1}) == {"n": 1}
    assert not events("module:exit")


async def test_a_module_that_is_unmounted_while_its_large_line_is_taken_leaves_nothing(session, misbehaving):
    await mounted(session, misbehaving("reply(request, [{'n': 'ж'}] * 400_000)"))
    call = asyncio.create_task(session.invoke(M, "x", {}))
    while not any(task.get_name().startswith("large line") for task in asyncio.all_tasks()):
        await asyncio.sleep(0)
    await session.unmount(M)
    with pytest.raises(Unreachable, match="was unmounted"):
        await call
    assert not any(task.get_name().startswith("large line") for task in asyncio.all_tasks())


async def test_a_slow_reader_holds_a_module_back_after_a_large_chunk_too(session, misbehaving):
    await mounted(session, misbehaving(f"for _ in range(50):\n    {LARGE_CHUNK.strip()}\nreply(request, 1)"))
    async with session.stream(M, "x", {}) as stream:
        await anext(stream)
        while stream._chunks._size < ENOUGH:
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert stream._chunks._size < 4 * ENOUGH
        assert sum([1 async for _ in stream]) == 49
        assert stream.dropped == 0


@WATCHED
async def test_large_chunks_that_an_ended_module_left_in_its_pipe_are_heard(session, misbehaving, events):
    """The reader is full, and there is no module any more to hold back."""
    await mounted(session, misbehaving(f"{LARGE_CHUNK}{LARGE_CHUNK}{SMALL_CHUNK}os._exit(3)"))
    async with session.stream(M, "x", {"text": "x" * 1_000_000}) as stream:  # this widens the pipes
        while not events("module:exit"):
            await asyncio.sleep(0)
        assert [len(chunk) async for chunk in _until_the_end(stream)] == [400_000, 400_000, 5]
        with pytest.raises(Unreachable, match="exit code 3"):
            await stream.result()


async def _until_the_end(stream):
    with contextlib.suppress(Unreachable):
        async for chunk in stream:
            yield chunk


async def test_what_is_told_of_an_earlier_process_is_not_taken_for_the_last_one_s(module):
    """A transport may still hear of the one when the other runs."""
    async with Host() as host:
        connection = open_transport(module("echo.py"), lambda *_: None, host)
        await connection.start((), None)
        launcher = connection._launcher
        details = {"pid": 0, "exit_code": 1, "stderr": "of the earlier one"}
        assert launcher.explain(details, launcher.heard()) == details
        await connection.close()
