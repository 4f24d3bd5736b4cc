"""What STDIO promises holds for servers of MCP too, beyond the table of faults."""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.conftest import exits
from tests.mcp_transport.servers import MODERN

from amplifier_core import BudgetExceeded, Internal, KernelError, Oom, Timeout, Unreachable
from amplifier_core.hookspecs import Launch
from amplifier_transport_mcp import _connection

M = "/mnt/tools/m"
GOOD = "reply(request, told('fine'))"
FINE = {"content": [{"type": "text", "text": "fine"}]}


def either(bad):
    """Misbehave for the tool `bad`, else be fine."""
    lines = "\n".join("    " + line for line in bad.strip().splitlines())
    return f"if op == 'bad':\n{lines}\nelse:\n    {GOOD}"


ERROR = "{'code': 1, 'message': ''}"


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("send({'id': request['id'], 'result': [1]})", "expected a result that is an object"),
        (f"send({{'id': request['id'], 'result': {{}}, 'error': {ERROR}}})", "a result or an"),
        ("out(json.dumps({'id': request['id'], 'result': {}}) + '\\n')", "JSON-RPC 2.0"),
        ("send({'result': {'x': float('nan'), 'rows': [{'id': 1}, {'id': 2}]}, 'id': request['id']})", "malformed"),
        ("send({'id': None, 'error': {'code': -32700, 'message': 'out of stack'}})", "bad: out of stack"),
        ("send({'error': {'code': -32700, 'message': 'out of stack'}})", "bad: out of stack"),
        ("send({'id': '', 'error': {'code': -32700, 'message': 'out of stack'}})", "bad: out of stack"),
    ],
)
async def test_a_server_that_breaks_in_mid_call_fails_that_call_soon_and_the_next_one_works(
    session, mount, describe, script, bad, fault
):
    await mount(describe(script(either(bad))))
    with pytest.raises(Internal, match=fault):
        await session.invoke(M, "bad", {}, timeout=20)
    assert await session.invoke(M, "good", {}) == FINE


@pytest.mark.parametrize(
    "line",
    [
        "{'id': request['id'], 'method': 'x', 'params': 1}",
        "{'id': request['id'], 'method': 'x', 'params': {'x': float('nan')}}",
        "{'method': 'notifications/x', 'params': {'id': request['id'], 'x': float('nan')}}",
    ],
)
async def test_what_is_broken_and_no_reply_fails_no_call(session, mount, describe, script, line):
    await mount(describe(script(f"send({line})\n{GOOD}")))
    assert await session.invoke(M, "good", {}) == FINE


@pytest.mark.parametrize("line", ["{'x': float('nan'), 'rows': [{'id': first['id']}]}", "{'x': float('nan')}"])
async def test_a_broken_reply_fails_the_call_that_it_answers_and_no_other(session, mount, describe, script, line):
    code = f"""
if op == 'slow':
    first = request
else:
    send({{'result': {line}, 'id': request['id']}})
    reply(first, told('fine'))
"""
    await mount(describe(script(code)))
    first = asyncio.create_task(session.invoke(M, "slow", {}, timeout=20))
    await asyncio.sleep(0)
    with pytest.raises(Internal, match="malformed"):
        await session.invoke(M, "bad", {}, timeout=20)
    assert await first == FINE


async def test_an_error_without_an_id_fails_none_of_several_calls(session, mount, describe, script):
    code = """
if op == 'slow':
    first = request
else:
    send({'id': None, 'error': {'code': -32700, 'message': 'out of stack'}})
    reply(request, told('fine'))
    reply(first, told('fine'))
"""
    await mount(describe(script(code)))
    first = asyncio.create_task(session.invoke(M, "slow", {}, timeout=20))
    await asyncio.sleep(0)
    assert await session.invoke(M, "good", {}, timeout=20) == FINE
    assert await first == FINE


@pytest.mark.parametrize(
    "sent",
    [
        "'id': str(request['id']), 'result': result",
        "'id': float(request['id']), 'result': result",
        "'id': request['id'], 'result': result, 'error': None",
    ],
)
async def test_a_reply_that_says_the_same_in_other_words_counts(session, mount, describe, script, sent):
    await mount(describe(script(GOOD, before=f"def reply(request, result):\n    send({{{sent}}})")))
    assert await session.invoke(M, "good", {}) == FINE


BROKEN = {
    "bom": "out('\\ufeff' + text + '\\n')",
    "null": "send({'id': request['id'], 'result': None})",
    "nothing": "out('null\\n')",
    "no id": "send({'result': {}})",
    "null as id": "send({'id': None, 'result': {}})",
    "another id": "send({'id': 4711, 'result': {}})",
    "nan": "send({'id': request['id'], 'result': {'x': float('nan')}})",
    "array": "out('[' + text + ']\\n')",
    "empty array": "out('[]\\n')",
    "cut": "out(text[:-2] + '\\n')",
    "no version": "out(json.dumps({'id': request['id'], 'result': {}}) + '\\n')",
    "text": "send({'id': request['id'], 'result': 'fine'})",
    "no code": "send({'id': request['id'], 'error': {'message': 'no'}})",
}


@pytest.mark.parametrize("method", ["initialize", "tools/list", "ping"])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_broken_reply_of_the_handshake_fails_the_mount_and_is_shown(mount, describe, script, method, broken):
    before = f"""
def standard(request, inner=standard):
    if request['method'] != {method!r}:
        return inner(request)
    text = json.dumps({{'jsonrpc': '2.0', 'id': request['id'], 'result': {{}}}})
    {broken}
    return True
"""
    with pytest.raises(Internal, match="broke its contract") as caught:
        await mount(describe(script(GOOD, before=before)), timeout=60)
    assert caught.value.details["line"]


OLD = """
greeted = False
def messages(inner=messages):
    global greeted
    for message in inner():
        greeted = greeted or message["method"] == "initialize"
        if greeted:
            yield message
        else:
            early()
"""
EARLY = {
    "ends": "sys.exit('fatal: expected initialize')",
    "closes its output": "os.close(1); sys.stdin.read()",
    "ends with an error": "raise ValueError",
    "is silent": "pass",
}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY)
async def test_a_server_before_2026_that_does_not_bear_the_first_question_is_greeted(
    session, mount, describe, script, events, early, monkeypatch
):
    monkeypatch.setattr("amplifier_transport_mcp._stdio.SILENCE_SECONDS", 0.5)
    await mount(describe(script(GOOD, before=f"def early():\n    {early}\n{OLD}")))
    assert await session.invoke(M, "good", {}) == FINE
    started = len(events("module:start"))
    assert started == (1 if early == "pass" else 2)
    os.kill(events("module:start")[-1]["data"]["pid"], signal.SIGKILL)
    while not events("module:exit")[started - 1 :]:
        await asyncio.sleep(0.005)
    assert await session.invoke(M, "good", {}, timeout=10) == FINE
    assert len(events("module:start")) == started + 1


async def test_a_server_that_has_become_an_older_one_is_greeted_for_all_that_wait(
    session, mount, describe, script, events, tmp_path
):
    mark = tmp_path / "again"
    before = f"""
again = os.path.exists({str(mark)!r})
open({str(mark)!r}, "w").close()
def messages(inner=messages):
    greeted = not again
    for message in inner():
        greeted = greeted or message["method"] == "initialize"
        if not greeted:
            sys.exit("fatal: expected initialize")
        yield message
"""
    await mount(describe(script(GOOD, before=before)))
    os.kill(events("module:start")[0]["data"]["pid"], signal.SIGKILL)
    while not events("module:exit"):
        await asyncio.sleep(0.005)
    assert await asyncio.gather(*(session.invoke(M, "good", {}) for _ in range(3))) == [FINE] * 3


async def noticed():
    """Wait, so that the end of the process is seen."""
    await asyncio.sleep(0.3)


async def unnoticed():
    """Wait, and let nothing else run."""
    time.sleep(0.3)


async def at_once():
    """Do not wait."""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells what a process has read")
@pytest.mark.parametrize("wait", [at_once, noticed, unnoticed])
async def test_a_server_that_ends_without_a_question_is_not_started_again(mount, describe, events, monkeypatch, wait):
    async def send(streams, item):
        await wait()
        await real(streams, item)

    importlib.import_module("amplifier_transport_mcp._sdk")
    streams = importlib.import_module("amplifier_transport_mcp._stdio").StdioStreams
    real = streams._send
    monkeypatch.setattr(streams, "_send", send)
    with pytest.raises(Unreachable, match="exit code 3"):
        await mount(describe([sys.executable, "-c", "raise SystemExit(3)"]))
    assert len(events("module:start")) == 1


async def test_a_server_that_ends_at_every_first_question_is_started_twice(mount, describe, events):
    with pytest.raises(Unreachable, match="exit code 3"):
        await mount(describe([sys.executable, "-c", "input(); raise SystemExit(3)"]))
    assert len(events("module:start")) == 2


async def test_noise_is_skipped_and_counted_once(session, mount, describe, script, events):
    printed = "print('Loading …'); print('[1, 2]'); print('{}'); print('{\"id\": 99}', flush=True)"
    noise = f"{printed}\nsend({{'id': 1.5, 'method': 'x'}})\nsend({{'id': None, 'result': {{}}}})"
    await mount(describe(script(f"{noise}\n{GOOD}")))
    assert await session.invoke(M, "good", {}) == FINE
    await session.unmount("/mnt/tools", "m")
    (told,) = events("module:noise")
    assert told["data"] == {"count": 6, "first": "Loading …"}
    assert [event["data"]["exit_code"] for event in events("module:exit")] == [0]


async def test_messages_of_no_interest_are_passed_over(session, mount, describe, script):
    code = """
send({'method': 'notifications/message', 'params': {'level': 'info', 'data': 'x'}})
send({'method': 'notifications/nobody/knows'})
send({'method': 'notifications/progress', 'params': {'progressToken': 'nobody', 'progress': 1}})
send({'method': 'notifications/progress'})
send({'method': 'notifications/cancelled', 'params': {'requestId': 99}})
send({'id': 'mine', 'method': 'ping'})
"""
    await mount(describe(script(code + GOOD)))
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_server_that_died_unnoticed_is_started_again_without_a_failure(
    session, mount, describe, script, events
):
    await mount(describe(script(GOOD)))
    os.kill(events("module:start")[0]["data"]["pid"], 9)
    while not (process_gone(events("module:start")[0]["data"]["pid"])):
        pass  # the loop has no turn in which it could notice
    assert await session.invoke(M, "good", {}) == FINE
    assert len(events("module:start")) == 2


def process_gone(pid):
    """Tell whether a child process has ended, though nobody has reaped it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_a_server_that_closes_its_stdin_is_ended(session, mount, describe, script, tmp_path):
    mark = tmp_path / "closed"
    code = f"{GOOD}\nif op == 'bad':\n    os.close(0)\n    open({str(mark)!r}, 'w').close()\n    time.sleep(60)"
    await mount(describe(script(code)))
    assert await session.invoke(M, "bad", {}) == FINE
    while not mark.exists():
        await asyncio.sleep(0.005)
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_server_that_listens_no_more_but_asks_is_ended(session, mount, describe, script):
    await mount(describe(script(either("os.close(0)\nsend({'id': 'x', 'method': 'ping'})\ntime.sleep(60)"))))
    with pytest.raises(Unreachable, match="killed by SIGKILL"):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_cancel_reaches_the_server(session, mount, describe, script, tmp_path):
    heard = tmp_path / "heard"
    code = f"""
if request["method"] == "notifications/cancelled":
    open({str(heard)!r}, "a").write(str(request["params"]["requestId"]) + "\\n")
elif "id" in request and not standard(request):
    open({str(heard)!r}, "a").write(str(request["id"]) + "\\n")
"""
    await mount(describe(script(code, loop="messages")))
    for revision in range(1, 3):
        with pytest.raises(Timeout):
            await session.invoke(M, "slow", {}, timeout=0.2)
        while len(heard.read_text().split()) < 2 * revision:
            await asyncio.sleep(0.005)
    began, cancelled, *more = heard.read_text().split()
    assert began == cancelled
    assert more[0] == more[1] != began


@pytest.mark.parametrize("before", ["", MODERN], ids=["2025", "2026"])
async def test_a_server_that_is_stuck_is_killed_after_a_cancel_and_started_again(
    session, mount, describe, script, events, before
):
    complete = {"resultType": "complete"} if before else {}
    code = f"if op == 'bad':\n    time.sleep(60)\nreply(request, told('fine', **{complete}))"
    await mount(describe(script(code, before=before)))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.2)
    assert await session.invoke(M, "good", {}) == FINE
    (exited,) = await exits(events)
    assert exited["signal"] == "SIGKILL"


async def test_what_is_in_flight_when_a_server_is_killed_is_told_why(session, mount, describe, script, monkeypatch):
    monkeypatch.setattr(_connection, "CANCEL_GRACE", 0.3)
    await mount(describe(script(either("time.sleep(60)"))))
    other = asyncio.create_task(session.invoke(M, "bad", {}))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.2)
    with pytest.raises(Unreachable, match="did not answer a ping within 0.3 s after a cancel"):
        await other


async def test_a_server_that_dies_after_a_cancel_is_no_surprise(session, mount, describe, script):
    code = """
if request["method"] == "notifications/cancelled":
    os._exit(3)
elif "id" in request and not standard(request) and request["params"]["name"] == "good":
    reply(request, told("fine"))
"""
    await mount(describe(script(code, loop="messages")))
    with pytest.raises(Timeout):
        await session.invoke(M, "slow", {}, timeout=0.2)
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_request_that_waits_when_its_module_is_unmounted_starts_no_other_process(
    session, mount, describe, script, events
):
    await mount(describe(script(either("time.sleep(60)"))))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.2)
    waiting = asyncio.create_task(session.invoke(M, "good", {}))
    await asyncio.sleep(0)
    await session.unmount("/mnt/tools", "m")
    with pytest.raises(Unreachable):
        await waiting
    assert len(events("module:start")) == 1


async def test_unmounting_fails_what_is_in_flight_and_leaves_nothing(session, mount, describe, script, tmp_path):
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str({child}.pid) + '\\n')"
    await mount(describe(script(code, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")))
    flight = asyncio.create_task(session.invoke(M, "slow", {}))
    while not (tmp_path / "pid").exists() or "\n" not in (tmp_path / "pid").read_text():
        await asyncio.sleep(0.005)
    await session.unmount("/mnt/tools", "m")
    with pytest.raises(Unreachable, match="the module was unmounted"):
        await flight
    while not process_gone(int((tmp_path / "pid").read_text())):  # it was killed, which takes a moment
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("code", "kind", "fault"),
    [
        ("sys.stderr.write('no key'); os._exit(2)", Unreachable, "exit code 2"),
        ("fail(request, -32603, 'out of order')", Internal, "the handshake: out of order"),
        ("os.close(0); fail(request, -32601, 'x'); time.sleep(60)", Unreachable, "killed by SIGKILL"),
        ("reply(request, {'x': 1})", Internal, "the server broke its contract: the handshake"),
    ],
)
async def test_a_handshake_that_fails_says_why(mount, describe, script, code, kind, fault):
    loop = "def handshake():\n    for request in messages():\n        if 'id' in request:\n            yield request"
    with pytest.raises(kind, match=fault):
        await mount(describe(script(code, before=loop, loop="handshake")))


async def test_a_mount_that_takes_too_long_leaves_nothing(mount, describe):
    with pytest.raises(Timeout):
        await mount(describe([sys.executable, "-c", "import time; time.sleep(60)"]), timeout=0.5)


async def test_a_server_that_is_not_well_is_not_mounted(mount, describe, script, monkeypatch):
    monkeypatch.setattr(_connection, "_HEALTH_SECONDS", 0.2)
    deaf = "def standard(request, inner=standard):\n    return request['method'] == 'ping' or inner(request)"
    with pytest.raises(Timeout, match="did not answer a ping within 0.2 s"):
        await mount(describe(script(GOOD, before=deaf)))
    refusing = deaf.replace("request['method'] == 'ping'", "request['method'] == 'ping' and not fail(request, -1, 'x')")
    assert await mount(describe(script(GOOD, before=refusing)))  # it answers, and so it lives


async def test_a_timeout_tells_what_may_explain_it(session, mount, describe, script):
    await mount(
        describe(script("sys.stderr.write('waiting for the moon'); sys.stderr.flush(); print('hm', flush=True)"))
    )
    with pytest.raises(Timeout) as caught:
        await session.invoke(M, "slow", {}, timeout=0.5)
    assert caught.value.details["stderr"] == "waiting for the moon"
    assert caught.value.details["noise"] == {"count": 1, "first": "hm"}


@pytest.mark.parametrize(
    ("limits", "bad", "kind"),
    [
        ({"cpu_ms": 300}, "while True: pass", BudgetExceeded),
        ({"memory_bytes": 200_000_000}, "x = b'x' * 300_000_000; time.sleep(60)", Oom),
    ],
)
async def test_budgets_are_kept(session, mount, describe, script, limits, bad, kind):
    await mount(describe(script(either(bad)), limits=limits))
    with pytest.raises(kind):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_server_is_started_as_its_isolation_says(describe, script, open_one):
    class Confining:
        def confine(self, launch, granted):
            assert list(granted) == ["net:connect:*"]
            shown = {"network": True}
            return Launch(command=launch.command, cwd=launch.cwd, env={**launch.env, "CONFINED": "yes"}, shown=shown)

    told_of = []
    descriptor = describe(script("reply(request, told(os.environ['CONFINED']))"), capabilities=["net:connect:*"])
    connection = open_one(descriptor, lambda *event: told_of.append(event))
    await connection.start(["net:connect:*"], Confining())
    reply = await connection.request("invoke", b'{"op": "good", "args": {}}')
    await connection.close()
    assert reply.result == {"content": [{"type": "text", "text": "yes"}]}
    assert told_of[0][1]["network"] is True


async def test_a_connection_that_was_never_started_can_be_closed_killed_and_measured(open_one, describe):
    connection = open_one(describe(["nothing"]))
    assert connection.local
    assert connection.clues() == {}
    assert connection.usage is None or connection.usage(exact=True) is None
    connection.kill(KernelError("x"))
    await connection.close()
    assert json.dumps(connection.launch().command) == '["nothing"]'
    assert Path(connection.launch().cwd).is_absolute()


async def test_a_timeout_has_the_stderr_of_its_own_call_and_one_that_waits_for_a_grace_says_so(
    session, mount, describe, script
):
    code = """
if op == 'good':
    sys.stderr.write('of the first\\n')
    sys.stderr.flush()
    reply(request, told('fine'))
elif op == 'bad':
    sys.stderr.write('waits for a lock\\n')
    sys.stderr.flush()
    time.sleep(60)
"""
    await mount(describe(script(code, before="import sys, time")))
    for _ in range(3):
        await session.invoke(M, "good", {})
    with pytest.raises(Timeout) as caught:
        await session.invoke(M, "bad", {}, timeout=0.3)
    assert caught.value.details["stderr"] == "waits for a lock\n"
    with pytest.raises(Timeout) as caught:
        await session.invoke(M, "good", {}, timeout=0.1)
    assert caught.value.details == {"phase": "grace", "module": M}
    assert "had not answered a ping since a request was cancelled; this one was not sent" in caught.value.message


async def test_a_death_has_the_stderr_of_its_own_call(session, mount, describe, script):
    code = """
if op == 'bad':
    sys.exit('of this call')
sys.stderr.write('of the first\\n')
sys.stderr.flush()
reply(request, told('fine'))
"""
    await mount(describe(script(code, before="import sys")))
    for _ in range(3):
        await session.invoke(M, "good", {})
    with pytest.raises(Unreachable, match=f"{M}: the module went away: exit code 1") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["stderr"] == "of this call\n"
