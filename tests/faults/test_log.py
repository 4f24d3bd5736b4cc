"""The log when the kernel is killed, and the run when the log fails."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.faults.stage import wait_for_end

from amplifier_core import Internal, Kernel, KernelError, Plan
from amplifier_core._events.jsonl import JsonlSink

resource = pytest.importorskip("resource")

HERE = Path(__file__).parent
ECHO = "/mnt/tools/echo"


def whole_log(path):
    """Read a log with its earlier files; killed between two files, it may have no last one."""
    kept = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: int(file.suffix[1:]))
    return b"".join(file.read_bytes() for file in (*kept, path) if file.exists())


def parsed(data):
    """Parse a log, but for a torn last line."""
    *lines, _torn = data.split(b"\n")
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("what", "rounds"), [("emit", 60), ("rotate", 30), ("invoke", 12)])
def test_killing_the_kernel_at_any_moment_loses_nothing_that_a_call_has_returned_from(tmp_path, what, rounds):
    program = str(HERE / "killed.py")
    subprocess.run([sys.executable, program, what, str(tmp_path), str(rounds), "7"], timeout=120, check=True)
    for n in range(rounds):
        said = {int(line) for line in (tmp_path / f"{n}.said").read_text().splitlines()}
        events = parsed(whole_log(tmp_path / f"{n}.jsonl"))
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        data = [event["data"] for event in events if event["event"] in ("my:event", "module:invoke")]
        assert said
        assert said <= {each.get("args", each)["n"] for each in data}
    wait_for_end(str(tmp_path))


class Lines:
    """A sink in memory: it keeps what it is given, or raises."""

    def __init__(self):
        self.data = b""
        self.broken = False

    def write(self, line):
        if self.broken:
            raise RuntimeError("no\nmore")
        self.data += line

    def close(self):
        pass


@contextmanager
def size_limited(log):
    """Have room for half a line, and then again for all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 50, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def unwritable(log):
    """Have the file open for reading alone, for a time."""
    writable, readable = os.dup(log._fd), os.open(log.path, os.O_RDONLY)
    os.dup2(readable, log._fd, inheritable=False)
    yield
    os.dup2(writable, log._fd, inheritable=False)
    os.close(readable)
    os.close(writable)


@contextmanager
def closed(log):
    log.close()
    yield


@contextmanager
def raising(sink):
    sink.broken = True
    yield
    sink.broken = False


FAILURES = [
    pytest.param(size_limited, "File too large", id="a disk that fills up"),
    pytest.param(unwritable, "Bad file descriptor", id="a file that is not writable"),
    pytest.param(closed, "Bad file descriptor", id="a file that is closed"),
    pytest.param(raising, "RuntimeError: no", id="a sink that raises"),
    pytest.param(nullcontext, "No space left on device", id="a full disk"),
]


def sink_for(failure, folder):
    if failure is raising:
        return Lines()
    return JsonlSink("/dev/full" if failure is nullcontext else folder / "bad.jsonl")


def taken(sink, failure):
    """Give the whole lines that a sink took."""
    if failure is nullcontext:  # /dev/full
        return []
    data = sink.data if isinstance(sink, Lines) else sink.path.read_bytes()
    return [line for line in data.split(b"\n") if line.endswith(b"}")]


@pytest.mark.parametrize("bad_first", [True, False])
@pytest.mark.parametrize(("failure", "why"), FAILURES)
async def test_a_sink_that_fails_fails_no_run_and_both_the_others_and_close_say_so(
    tmp_path, module, failure, why, bad_first
):
    bad, whole, heard = sink_for(failure, tmp_path), Lines(), []

    async def hear(event):
        heard.append(event.error["message"])

    kernel = Kernel(event_log=False, sinks=[bad, whole] if bad_first else [whole, bad])
    with pytest.raises(Internal) as raised:
        async with kernel:
            session = await kernel.session.create(Plan("go on", {}))
            await session.register_hook("sink:error", hear)
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
            with failure(bad):
                for n in range(5):
                    assert await session.invoke(ECHO, "echo", {"n": n}) == {"n": n}
                    session.emit("my:event", {"n": n})
                with pytest.raises(KernelError, match="own_code"):
                    await session.invoke(ECHO, "fail", {"code": "own_code", "message": "x"})
            assert await session.invoke(ECHO, "echo", {"n": 9}) == {"n": 9}
    events = parsed(whole.data)
    assert sorted(event["seq"] for event in events) == list(range(1, len(events) + 1))
    assert [event["event"] for event in events].count("module:invoke") == 7
    (told,) = (event for event in events if event["event"] == "sink:error")
    assert told["data"] == {"sink": type(bad).__name__}
    assert why in told["error"]["message"]
    assert heard == (
        [] if failure is nullcontext else [told["error"]["message"]]
    )  # it failed before the hook was there
    missing = set(whole.data.splitlines()) - set(taken(bad, failure))
    assert raised.value.details["lost"] == len(missing) - 1  # nobody is told of his own failure
    assert raised.value.message == f"the kernel's sinks lost {len(missing) - 1} events; sink:error has the reason"
    assert len(taken(bad, failure)) == len(set(taken(bad, failure)) & set(whole.data.splitlines()))


async def test_a_log_that_fails_alone_fails_no_run_and_close_says_so(module):
    kernel = Kernel(event_log="/dev/full")
    with pytest.raises(Internal, match="lost [0-9]+ events"):
        async with kernel:
            session = await kernel.session.create(Plan("go on", {}))
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
            assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}


def test_a_small_disk_that_is_full_and_then_has_room_again(tmp_path):
    """Mount one where the system lets us; where not, the limit of a file's size above stands for it."""
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    mount = 'mount -t tmpfs -o size=64k small "$0" && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(disk)]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing_here(f"nothing can be mounted here: {error}")
    program = [sys.executable, str(HERE / "full_disk.py"), str(disk), str(other)]
    subprocess.run([*inside, *program], check=True, timeout=60)
    whole, cut = ((other / f"{name}.jsonl").read_bytes().splitlines() for name in ("whole", "cut"))
    missing = set(whole) - set(cut)
    assert 0 < int((other / "lost").read_text()) == len(missing) - 1
    assert cut[-1] == whole[-1]
    assert len([line for line in cut if line not in whole]) <= 1  # the one that was cut off
    errors = [json.loads(line) for line in whole if b'"sink:error"' in line]
    assert ["No space left on device" in error["error"]["message"] for error in errors] == [True]
