"""Logs that are no recordings, and recordings in which something was changed: what is said, and that nothing is run."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amplifier_core import Kernel
from amplifier_replay import Difference, UnusableLog, __main__, replay

CALLER, ECHO = "/mnt/orchestrators/caller", "/mnt/tools/echo"
OPENED = (
    "open",
    "subprocess.Popen",
    "os.posix_spawn",
    "os.fork",
    "os.exec",
    "os.system",
    "socket.connect",
    "socket.bind",
)


class Watch:
    """Notes what this process opens and starts while it is on. An audit hook cannot be taken out."""

    def __init__(self):
        self.on = False
        self.seen = []
        sys.addaudithook(self.hear)

    def hear(self, event, args):
        is_read = event == "open" and isinstance(args[2], int) and not args[2] & (os.O_WRONLY | os.O_RDWR)
        if self.on and event in OPENED and not is_read:  # modules are imported late
            self.seen.append((event, str(args[:1])))


WATCH = Watch()


async def allow(event):
    return {"decision": "allow"}


def invoking(n):
    return {"name": "invoke", "args": {"path": ECHO, "op": "echo", "args": {"n": n}}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Record a run with something of everything, once."""
    path = tmp_path_factory.mktemp("recorded") / "run.jsonl"
    modules = os.path.join(os.path.dirname(os.path.dirname(__file__)), "modules")  # noqa: PTH118, PTH120

    def told(name, kind, capabilities=()):
        file = os.path.join(modules, f"{name}.py")  # noqa: PTH118
        options = ["--name", name, "--kind", kind, "--capabilities", json.dumps(capabilities)]
        transport = {"type": "stdio", "command": [sys.executable, file, *options]}
        return {"name": name, "kind": kind, "capabilities": [*capabilities], "transport": transport}

    async def program():
        async with Kernel(event_log=path, isolation=False, recording=True) as kernel:
            session = await kernel.session.create({"goal": "test", "inputs": {"a": 1}})
            await session.register_hook("policy:request", allow)
            await session.mount("/mnt/tools", told("echo", "tool"), trusted=True)
            caller = told("caller", "orchestrator", ["sys:invoke:*", "sys:context.get"])
            await session.mount("/mnt/orchestrators", caller, trusted=True)
            await session.context.set_fragment("k", {"\u2028": [1.5, None]})
            fork = await session.fork()
            with fork.span("step"):
                session.emit("my:event", {"n": 1})
                calls = [invoking(1), {"name": "context.get"}, invoking(2)]
                await fork.invoke(CALLER, "call", {"syscalls": calls, "state": [1]})
            with contextlib.suppress(Exception):
                await session.invoke(ECHO, "fail", {"code": "mine", "message": "no"})
            await session.invoke(CALLER, "emit", {"events": [{"event": "x:y", "data": {}}]})
            await session.unmount("/mnt/tools")
            await session.end("done")

    asyncio.run(program())
    return path.read_bytes()


def run(path):
    """Replay a log, and give the exception. Nothing may be opened but the log, and nothing started."""
    WATCH.seen.clear()
    WATCH.on = True
    try:
        asyncio.run(replay(path, lambda _: None))
    except (UnusableLog, Difference) as error:
        return error
    finally:
        WATCH.on = False
        assert not WATCH.seen
    return None


def test_the_recording_itself_is_replayed(recorded, log):
    log.write_bytes(recorded)
    assert run(log) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [], "expected a recorded log, got an empty file"),
        (lambda lines: lines[:-1], "expected kernel:end as the last event: the log is cut, or the run goes on"),
        (lambda lines: [*lines[:7], lines[7][:-20]], ":8: expected a whole line: it is cut"),
        (lambda lines: lines[1:], ":1: expected seq 1, got 2: lines are missing or out of order"),
        (lambda lines: lines[:4] + lines[5:], ":5: expected seq 5, got 6: lines are missing or out of order"),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], ":5: expected seq 5, got 6"),
        (lambda lines: [*lines[:5], *lines[4:]], ":6: expected seq 6, got 5"),
        (lambda lines: lines + lines, ":50: expected one run in the log, got the start of another one: record"),
        (
            lambda lines: [*lines, lines[-1].replace(b'"seq":49', b'"seq":50')],
            "expected nothing after kernel:end, got seq 50",
        ),
        (
            lambda lines: [*lines[:3], b"\0" * 50 + b"\n", *lines[4:]],
            ":4: expected an event (protocol, section 7), got",
        ),
        (lambda lines: [*lines[:3], b"[" * 10**6 + b"\n", *lines[4:]], ":4: expected an event"),
        (lambda lines: [*lines[:3], b'{"data":' + b'{"a":' * 10**6 + b"\n", *lines[4:]], ":4: expected an event"),
        (
            lambda lines: [*lines[:3], b"no JSON\n", *lines[4:]],
            ":4: expected an event (protocol, section 7), got 'no JSON'",
        ),
        (lambda lines: [*lines[:3], b'{"id":7}\n', *lines[4:]], ":4: expected an event"),
        (lambda lines: [*lines[:3], b"\n", *lines[4:]], ":4: expected an event"),
        (
            lambda lines: [*lines[:6], lines[6].replace(b'"data":{', b'"data":{"\xff":1,'), *lines[7:]],
            ":7: expected an event",
        ),
        (
            lambda lines: [lines[0].replace(b'"recording"', b'"recordung"'), *lines[1:]],
            "without Kernel(recording=True)",
        ),
        (
            lambda lines: [lines[0].replace(b"kernel:start", b"kernel:stant"), *lines[1:]],
            "expected the kernel:start of a",
        ),
        (
            lambda lines: [lines[0].replace(b'"kernel":"', b'"kernel":"x'), *lines[1:]],
            "expected the kernel:start of kernel",
        ),
        (
            lambda lines: [lines[0].replace(b'"observer_queue":1024', b'"observer_queue":0'), *lines[1:]],
            "observer_queue",
        ),
    ],
    ids=itertools.count(),
)
def test_a_log_that_is_no_whole_recording_is_refused_in_one_line(recorded, log, capsys, monkeypatch, change, said):
    log.write_bytes(b"".join(change(recorded.splitlines(keepends=True))))
    error = run(log)
    assert isinstance(error, UnusableLog)
    assert said in error.message
    assert error.message.startswith(f"{log}")
    assert "\n" not in error.message
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", str(log)])
    assert __main__.main() == 2
    assert capsys.readouterr().err == f"{error.message}\n"


def test_an_event_of_another_kernel_is_refused(recorded, log):
    lines = recorded.splitlines(keepends=True)
    event = json.loads(lines[5])
    event["id"] = event["id"][:-8] + "00000000"
    lines[5] = json.dumps(event).encode() + b"\n"
    log.write_bytes(b"".join(lines))
    assert f"{log}:6: expected an event of kernel" in run(log).message


async def test_a_log_that_was_not_recorded_is_refused(log, again):
    async with Kernel(event_log=log, isolation=False) as kernel:
        await kernel.session.create({"goal": "test", "inputs": {}})
    with pytest.raises(UnusableLog, match=r"this log was made without Kernel\(recording=True\)"):
        await again(log)


async def test_a_line_that_is_too_long_is_refused_before_it_is_read(log, again, monkeypatch):
    monkeypatch.setattr("amplifier_replay._log.LINE_MAX", 10_000)
    with log.open("wb") as file:
        file.seek(2**30)
        file.write(b"\n")
    with pytest.raises(UnusableLog, match=":1: expected at most 10000 bytes in a line, got more"):
        await again(log)


def test_what_was_written_before_stays_where_nothing_is_run(tmp_path, monkeypatch):
    new = tmp_path / "new.jsonl"
    new.write_text("of another replay")
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", str(tmp_path / "nothing"), "-o", str(new)])
    assert __main__.main() == 2
    assert new.read_text() == "of another replay"


def test_ctrl_c_ends_a_replay_without_a_traceback(recorded, log, monkeypatch, capsys):
    log.write_bytes(recorded)
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", str(log)])
    monkeypatch.setattr(__main__, "replay", interrupted)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "interrupted\n"


async def interrupted(path, write):
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)


def test_the_name_of_a_log_may_be_text(recorded, log):
    log.write_bytes(recorded)
    assert asyncio.run(replay(str(log), lambda _: None)) == len(recorded.splitlines())


@pytest.mark.parametrize("kind", ["directory", "nothing"])
def test_what_cannot_be_read_is_refused(tmp_path, capsys, monkeypatch, kind):
    path = tmp_path if kind == "directory" else tmp_path / "nothing"
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", str(path)])
    assert __main__.main() == 2
    said = "Is a directory" if kind == "directory" else "No such file or directory"
    assert capsys.readouterr().err == f"{path}: cannot be read: {said}\n"


def test_the_program_writes_the_new_log_and_tells_a_difference(recorded, log, tmp_path, traced):
    log.write_bytes(recorded)
    new = tmp_path / "new.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "amplifier_replay", log, "-o", new], capture_output=True, text=True, check=False
    )
    count = len(recorded.splitlines())
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{count} events, all equal\n", "")
    assert new.read_bytes() == recorded
    assert new.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
    log.write_bytes(
        recorded.replace(b'"decision":"allow","capabilities":[]', b'"decision":"deny","capabilities":[]', 1)
    )
    done = subprocess.run([sys.executable, "-m", "amplifier_replay", log], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("seq ")
    assert len(done.stderr.splitlines()) == 1


def test_a_log_in_several_files_is_one_recording(recorded, log):
    lines = recorded.splitlines(keepends=True)
    for file, some in ((f"{log}.1", lines[:9]), (f"{log}.2", lines[9:17]), (log, lines[17:])):
        with open(file, "wb") as out:  # noqa: PTH123
            out.writelines(some)
    assert run(log) is None
    log.with_name(f"{log.name}.2").write_bytes(b"".join(lines[9:16]))
    assert run(log).message == f"{log}:1: expected seq 17, got 18: lines are missing or out of order"


async def test_a_log_that_was_rotated_is_replayed(log, module, again):
    async with Kernel(event_log=log, event_log_bytes=3000, isolation=False, recording=True) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        for n in range(20):
            await session.invoke(ECHO, "echo", {"n": n})
    lines = []
    await replay(log, lines.append)
    assert log.with_name(f"{log.name}.3").exists()
    whole = b"".join(
        each.read_bytes() for each in (log.with_name(f"{log.name}.{n}") for n in range(1, 9)) if each.exists()
    )
    assert b"".join(lines).startswith(whole[:3000])


def edited(recorded, choose, change):
    """Change the first event that is chosen, and give the log and the number of that event."""
    lines = recorded.splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    event = next(each for each in events if choose(each))
    change(event)
    lines[event["seq"] - 1] = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    return b"".join(lines), event["seq"]


def on(name, **data):
    return lambda event: event["event"] == name and all(event.get("data", {}).get(key) == data[key] for key in data)


@pytest.mark.parametrize(
    ("choose", "change", "said"),
    [
        (on("module:invoke", args={"n": 1}), lambda e: e["data"].update(args={"n": 9}), "$.data.args.n 9, got 1"),
        (on("module:pre_invoke", args={"n": 2}), lambda e: e["data"].update(op="oops"), '$.data.op "oops", got "echo"'),
        (
            on("policy:request", args={"n": 1}),
            lambda e: e["data"].update(trusted=False),
            "$.data.trusted false, got true",
        ),
        (on("policy:decision", op="echo"), lambda e: e["data"].update(scope="session"), "session"),
        (
            on("policy:decision", op="echo"),
            lambda e: e["data"].update(decision="deny"),
            '$.data.decision "deny", got "allow"',
        ),
        (on("context:get"), lambda e: e["data"].update(keys=7), "$.data.keys 7, got 1"),
        (on("mount:add"), lambda e: e["data"].update(kind="agent"), '$.data.kind "agent", got "tool"'),
        (on("session:fork"), lambda e: e["data"].update(parent_id="ses_0"), "got nothing"),
        (on("x:y"), lambda e: e.update(data={"n": 1}), "$.data.n 1, got nothing"),
        (on("module:exit"), lambda e: e.update(module="/mnt/tools/other"), "module:exit of /mnt/tools/other"),
        (on("session:end"), lambda e: e.update(event="session:fork"), "session:fork"),
        (on("module:reply"), lambda e: e["data"]["pending"].update(syscalls=7), "an event as the kernel writes it"),
        (on("module:reply"), lambda e: e.update(data=[1]), "an event as the kernel writes it"),
        (on("policy:decision", op="echo"), lambda e: e["data"].update(hooks=[]), "hooks"),
        (on("hook:register"), lambda e: e["data"].pop("priority"), "an event as the kernel writes it"),
        (on("mount:pre_add"), lambda e: e["data"]["descriptor"].update(kind=7), "got nothing"),
    ],
    ids=itertools.count(),
)
def test_a_difference_names_the_event_what_was_expected_and_what_came(recorded, log, choose, change, said):
    text, seq = edited(recorded, choose, change)
    log.write_bytes(text)
    error = run(log)
    assert isinstance(error, Difference)
    assert error.seq == seq
    assert error.message.startswith(f"seq {seq}, ")
    assert said in error.message
    assert "\n" not in error.message
    assert len(error.message) < 1200


def test_two_events_in_another_order_are_a_difference(recorded, log):
    lines = recorded.splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    asked = next(n for n, each in enumerate(events) if each["event"] == "policy:request")
    one, other = events[asked], events[asked + 1]
    one["seq"], other["seq"] = other["seq"], one["seq"]
    lines[asked], lines[asked + 1] = (json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in (other, one))
    log.write_bytes(b"".join(lines))
    error = run(log)
    assert error.seq == other["seq"]
    assert error.message.endswith(" later, got it before the event that it follows")


def test_what_the_log_has_not_is_told_though_it_is_of_no_span(recorded, log):
    lines = recorded.splitlines(keepends=True)
    ended = next(n for n, line in enumerate(lines) if b'"session:end"' in line)
    following = [json.loads(line) for line in lines[ended + 1 :]]
    for event in following:
        event["seq"] -= 1
    kept = [json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in following]
    log.write_bytes(b"".join([*lines[:ended], *kept]))
    error = run(log)
    assert isinstance(error, Difference)
    assert "session:end" in error.message


@pytest.mark.parametrize("key", [b"a\\nb", b"a\\u001b[31m", b"a\\u2028b", "ü".encode()])
def test_a_key_with_any_character_is_told_in_one_line(recorded, log, key):
    """A log may have been changed by anybody."""
    log.write_bytes(recorded.replace(b'"unenforced"', b'"%b"' % key, 1))
    error = run(log)
    assert isinstance(error, Difference)
    assert error.message.isprintable()


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_byte_that_is_changed_is_told_or_changes_nothing(recorded, log, data):
    at = data.draw(st.integers(0, len(recorded) - 1))
    put = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b"9", b'"', b"{", b"null", b",", b"\n"])))
    changed = recorded[:at] + put + recorded[at + 1 :]
    log.write_bytes(changed)
    error = run(log)
    if isinstance(error, Difference):
        assert error.seq >= recorded[:at].count(b"\n") + 1 or error.seq <= len(changed.splitlines())
        assert "\n" not in error.message


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_member_that_is_changed_is_told_or_changes_nothing(recorded, log, data):
    lines = recorded.splitlines(keepends=True)
    number = data.draw(st.integers(1, len(lines) - 2))
    event = json.loads(lines[number])
    place, key = event, data.draw(st.sampled_from(sorted(event)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place, key = place[key], data.draw(st.sampled_from(sorted(place[key])))
    place[key] = data.draw(st.sampled_from([None, 7, -1.5, "", "x", [], [1], {}, {"a": None}, True, "*", "/mnt/tools"]))
    lines[number] = json.dumps(event, separators=(",", ":")).encode() + b"\n"
    log.write_bytes(b"".join(lines))
    error = run(log)
    assert error is None or "\n" not in error.message
