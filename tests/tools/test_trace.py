"""``amplifier-kernel trace`` as a shell runs it, with logs that a kernel wrote and with logs that are damaged."""

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from functools import partial

import pytest

from amplifier_core import Kernel, KernelError, Plan
from amplifier_tools._trace.log import Log, _is_same

pytestmark = pytest.mark.newest

COMMAND = [sys.executable, "-m", "amplifier_tools", "trace"]
T0 = 1_800_000_000.0


def event(seq, name="x:y", kernel="aaaaaaaa", **more):
    envelope = {"id": f"evt_{seq:024}{kernel}", "ts": T0 + seq, "event": name, "component": "kernel", "seq": seq}
    return json.dumps({**envelope, **more}).encode() + b"\n"


@pytest.fixture
def trace(traced):
    """Run a command to its end: exit code, stdout, stderr."""

    def run(*words, **options):
        done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, timeout=60, check=False, **options)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.fixture
def show(trace):
    return partial(trace, "show")


@pytest.fixture
async def run(log, module):
    """Write the log of a run with a tool that works and one that fails, and give the id of its session."""

    async def allow(_):
        return {"decision": "allow", "reason": "it may"}

    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("a run"))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        caller = module("caller.py", kind="orchestrator", capabilities=["sys:invoke"])
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        calls = [
            {"name": "invoke", "args": {"path": "/mnt/tools/echo", "op": op, "args": args}}
            for op, args in (("echo", {"n": 1}), ("fail", {"code": "mine", "message": "\x1b[31mno"}))
        ]
        await session.invoke("/mnt/orchestrators/caller", "call", {"syscalls": calls})
        with pytest.raises(KernelError):
            await session.invoke("/mnt/tools/echo", "exit", {"code": 3})
        return session.session_id


def test_a_run_is_shown_as_trees(show, run, log):
    status, out, errors = show(log)
    assert (status, errors) == (0, "")
    stamp = r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.match(rf"── kernel [0-9a-f]{{8}}, {stamp}\n +0\.000 s +· kernel:start pid \d+, protocol 1, ", out)
    assert re.search(rf"\n── kernel [0-9a-f]{{8}}, session {run}, {stamp}\n +0\.\d\d\d s +· session:start", out)
    tree = out[out.index("✓ /mnt/orchestrators/caller call") :]
    assert re.search(r"\n.* m?s  ├─✓ /mnt/tools/echo echo \{\"n\":1} → \{\"n\":1}\n", tree)
    assert re.search(r"\n.* m?s  [├└]─✗ /mnt/tools/echo fail .*\n +│? +mine: \\x1b\[31mno\n", tree)
    assert re.search(r"\n.*  [├└]─· policy: allow: it may, trusted \(run\.<locals>\.allow [\d.]+ ms\)\n", tree)
    assert re.search(r"✗ /mnt/tools/echo exit .*\n( .*\n)* +│? +exit_code: 3\n", tree)
    assert "\x1b" not in out


def test_filters_leave_what_fits_and_the_spans_above_it(show, run, log):
    _, out, _ = show(log, "--status", "error")
    assert re.findall(r"[✗✓] /mnt/\S+ \w+", out) == [
        "✓ /mnt/orchestrators/caller call",
        "✗ /mnt/tools/echo fail",
        "✗ /mnt/tools/echo exit",
    ]
    for pattern in ("caller", "/mnt/orchestrators/*"):
        _, out, _ = show(log, "--module", pattern)
        assert "/mnt/orchestrators/caller call" in out
        assert "/mnt/tools/echo echo" not in out
    assert show(log, "--session", "nowhere")[1] == ""
    of_session = show(log, "--session", run[:8])[1]
    assert of_session == show(log, "--session", run[4:])[1]
    everything = [line for line in show(log)[1].splitlines() if not re.search("^──|· kernel:", line)]
    assert [line for line in of_session.splitlines() if not line.startswith("──")] == everything
    _, out, _ = show(log, "--status", "ok", "--module", "echo")
    assert "echo fail" not in out
    assert "echo echo" in out


def test_a_call_in_flight_is_of_no_status(show, log):
    log.write_bytes(event(1, "module:pre_invoke", span_id="a", module="/mnt/tools/a", data={"op": "go", "args": {}}))
    assert "… /mnt/tools/a go {}, in flight: its end is not here" in show(log, "--module", "a")[1]
    assert show(log, "--status", "ok")[1] == show(log, "--status", "error")[1] == show(log, "--module", "b")[1] == ""


def test_rotated_files_are_read_in_the_order_of_their_numbers(show, tmp_path):
    for number, name in enumerate(("run.jsonl.2", "run.jsonl.10", "run.jsonl.11", "run.jsonl"), 1):
        (tmp_path / name).write_bytes(event(number, f"n:{number}"))
    (tmp_path / "run.jsonl.old").write_bytes(event(9, "not:this"))
    (tmp_path / "other.jsonl.1").write_bytes(event(9, "not:this"))
    assert re.findall(r"· (\S+)", show(tmp_path / "run.jsonl")[1]) == ["n:1", "n:2", "n:3", "n:4"]
    (tmp_path / "run.jsonl").unlink()
    assert re.findall(r"· (\S+)", show(tmp_path / "run.jsonl")[1]) == ["n:1", "n:2", "n:3"]
    assert re.findall(r"· (\S+)", show(tmp_path / "run.jsonl.2")[1]) == ["n:1"]


def test_torn_lines_are_skipped_and_counted_and_missing_events_too(show, log):
    torn = event(3)
    lines = [event(1), torn[:40] + b"\n", b"\xff\n", event(4), event(4), event(9), event(2)]
    log.write_bytes(b"".join(lines) + event(10)[:30])
    status, out, errors = show(log)
    assert status == 0
    assert out.count("·") == 5
    assert errors == (
        "lines that are no events, skipped: 3\nevents that are missing, as the numbers of the others show: 6\n"
    )
    log.write_bytes(event(1)[:-1])  # its end is all that it lacks
    assert show(log)[2] == ""


@pytest.mark.parametrize("command", [("show",), ("html",), ("export", "--to", "perfetto"), ("export", "--to", "otlp")])
def test_a_file_without_any_event_is_told(trace, log, command):
    word, *options = command
    log.write_bytes(b"# Notes\n\nNo log.\n")
    status, _, errors = trace(word, log, *options)
    counted, told = errors.splitlines()
    assert (status, counted) == (1, "lines that are no events, skipped: 3")
    assert told == f"Error: {log}: it has no events; expected the log of a kernel, a JSON object a line"
    log.write_bytes(b"")  # a kernel may have opened it just now
    status, _, errors = trace(word, log, *options)
    assert (status, errors) == (0, f"{log}: it has no events\n")


def test_kernels_in_one_log_are_told_apart(show, log):
    log.write_bytes(event(1) + event(1, kernel="bbbbbbbb") + event(2))
    _, out, errors = show(log)
    assert re.findall("── kernel (.{8})", out) == ["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"]
    assert errors == ""


def test_of_very_many_kernels_only_some_are_counted(show, log):
    log.write_bytes(b"".join(event(seq, kernel=f"{n:08}") for seq in (1, 3) for n in range(1100)))
    assert show(log)[2] == "events that are missing, as the numbers of the others show: 1024\n"


def test_nothing_is_waited_for_in_a_file_that_another_one_continues(log):
    log.write_bytes(event(1))
    with log.open("rb") as file:
        follower = Log(log, follow=True)
        assert not follower._wait(file)
        log.rename(log.with_name(f"{log.name}.1"))
        log.write_bytes(event(2))
        assert follower._wait(file)


def test_a_line_has_a_bound(show, log):
    long = event(2, data={"x": "x" * (17 << 20)})
    log.write_bytes(event(1) + long + event(3, "after:it") + b"x" * (40 << 20))
    status, out, errors = show(log)
    assert status == 0
    assert "after:it" in out
    assert errors.splitlines()[0] == "lines of more than 16777216 bytes, skipped: 2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: cannot be read: No such file or directory"),
        (["."], ".: cannot be read: Is a directory"),
        (["nowhere.jsonl", "--status", "unknown"], "'unknown' is not one of 'ok', 'error'"),
        ([], "Missing argument 'LOG'"),
    ],
)
def test_bad_usage_is_told_in_a_line(show, tmp_path, words, said):
    status, out, errors = show(*words, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert said in errors
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_ends_it_quietly(traced, log):
    log.write_bytes(b"".join(event(n, "x:" + "y" * 100) for n in range(2000)))
    command = [*COMMAND, "show", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


class Following:
    """The command with ``--follow``, and what it has printed."""

    def __init__(self, log, *words):
        command = [*COMMAND, "show", "--follow", str(log), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out = self.process.stdout

    def read_until(self, text):
        assert self.out
        for line in iter(self.out.readline, b""):
            if text in line.decode():
                return
        pytest.fail(f"it ended before {text}")

    def end(self):
        self.process.send_signal(signal.SIGINT)
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), errors.decode()


@pytest.fixture
def follow(traced, log):
    started = []

    def start(*words):
        started.append(Following(log, *words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate(timeout=60)


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def test_a_log_is_followed_while_it_grows_and_over_its_rotations(follow, log):
    log.write_bytes(event(1, "n:1"))
    following = follow()
    following.read_until("n:1")
    whole = event(2, "n:2")
    append(log, whole[:40])
    append(log, whole[40:])
    following.read_until("n:2")
    append(log, event(3, "n:3"))
    log.rename(f"{log}.1")
    log.write_bytes(event(4, "n:4"))
    log.rename(f"{log}.2")
    log.write_bytes(event(5, "n:5"))
    following.read_until("n:3")
    following.read_until("n:4")
    following.read_until("n:5")
    log.unlink()
    log.with_name(f"{log.name}.1").unlink()
    log.with_name(f"{log.name}.2").unlink()
    log.write_bytes(event(6, "n:6"))
    following.read_until("n:6")
    append(log, event(7, "policy:decision", span_id="a", data={"decision": "allow"}) + event(8, "n:8") + b"half")
    following.read_until("n:8")
    status, out, errors = following.end()
    assert (status, errors) == (0, "")
    assert "… span a: its end is not here\n" in out


class Renaming(Log):
    """A log whose file is renamed at the worst moment, and perhaps not there again yet."""

    renames = 1
    late = False

    def _after(self, file):
        found = super()._after(file)
        if file is not None and self.renames and self._path.exists():
            self.renames -= 1
            self._path.rename(f"{self._path}.2")
            if not self.late:
                self._path.write_bytes(b"three\n")
        return found


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_is_renamed_before_it_is_opened_is_read_all_the_same(log, late):
    log.with_name(f"{log.name}.1").write_bytes(b"one\n")
    log.write_bytes(b"two\n")
    renaming = Renaming(log)
    renaming.late = late
    assert list(renaming.lines()) == [b"one", b"two", *([] if late else [b"three"])]


def test_a_follower_goes_on_to_the_next_file_without_waiting(log):
    log.with_name(f"{log.name}.1").write_bytes(b"one\n")
    log.write_bytes(b"two\n")
    lines = Log(log, follow=True).lines()
    assert [next(lines), next(lines)] == [b"one", b"two"]
    lines.close()  # type: ignore[attr-defined]


def test_a_file_that_vanishes_at_a_look_is_none_that_is_open(log):
    log.write_bytes(b"one\n")
    with log.open("rb") as file:
        assert _is_same(log, file)
        log.unlink()
        assert not _is_same(log, file)


async def test_a_kernel_is_followed_while_it_runs(follow, log, module):
    async with Kernel(event_log=log, event_log_bytes=4000) as kernel:
        session = await kernel.session.create(Plan("a run"))
        following = follow("--module", "echo")
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        for n in range(40):
            await session.invoke("/mnt/tools/echo", "echo", {"n": n, "more": "x" * 100})
        for n in range(40):
            await asyncio.to_thread(following.read_until, f'echo {{"n":{n},')
    assert following.end()[0] == 0
    assert len(list(log.parent.glob("events.jsonl.*"))) >= 2


def on_a_terminal(*words, stdout_too):
    """Run the command with a terminal as stderr, and perhaps as stdout: what the terminal and the pipe get."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    out = theirs if stdout_too else subprocess.PIPE
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen([*COMMAND, "show", *map(str, words)], stdout=out, stderr=theirs, env=environment) as process:
        os.close(theirs)
        piped = process.stdout.read().decode() if process.stdout else ""
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    return shown.decode().replace("\r\n", "\n"), piped


@pytest.mark.parametrize("stdout_too", [True, False])
def test_a_terminal_has_a_progress_bar_beside_the_trees(traced, log, stdout_too):
    log.write_bytes(b"".join(event(n, f"n:{n}", data={"x": "x" * 200}) for n in range(1500)))
    shown, piped = on_a_terminal(log, stdout_too=stdout_too)
    trees = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown) if stdout_too else piped
    assert "· n:0 {" in trees
    assert "· n:1499 {" in trees
    assert "reading" in shown
    if stdout_too:
        assert all(len(line.rpartition("\r")[2]) <= 100 for line in trees.splitlines())


PEAK = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
print(os.wait4(process.pid, 0)[2].ru_maxrss)
"""


def test_memory_does_not_grow_with_the_log(log):
    def peak(count):
        data = {"op": "go", "args": {"text": "x" * 400}}
        with log.open("wb") as file:
            for n in range(count):
                span = {"span_id": f"s{n}", "parent_span_id": "root", "duration_ms": 1.0, "module": "/mnt/tools/a"}
                file.write(event(n + 1, "module:invoke", data=data, **span))
        command = [*COMMAND, "show", str(log)]
        done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, check=True)
        return int(done.stdout)

    few, many = peak(3000), peak(30_000)
    assert many < few + 8000  # KiB; the log is 20 MB larger


def test_no_field_of_an_event_is_obeyed_by_a_terminal(show, log):
    odd = "\x1b]0;x\x07\u202e"
    place = {"component": odd, "session_id": f"ses_{odd}", "module": odd, "id": f"evt_{odd}"}
    spans = {"span_id": odd, "parent_span_id": f"up{odd}", "duration_ms": 1.0}
    log.write_bytes(
        event(1, "module:invoke", **place, **spans) + event(2, odd, **place) + event(3, odd, **place, **spans)
    )
    code, out, err = show(log)
    assert (code, err) == (0, "")
    assert ", session ses_\\x1b]0;x\\x07\\u202e, " in out
    assert "… span up\\x1b]0;x\\x07\\u202e: its end is not here" in out
    assert out.replace("\n", "").isprintable()
