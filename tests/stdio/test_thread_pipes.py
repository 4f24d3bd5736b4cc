"""The pipes that threads move: what is peculiar to them. All else is tested with both ways in test_stdio."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from amplifier_core.hookspecs import Launch
from amplifier_transport_stdio._loop_pipes import READ
from amplifier_transport_stdio._process import Process, can_watch_pipes

THREADS = pytest.mark.asyncio(loop_factories=["threads"])

ESCAPE = """
import os, time
ready, go = os.pipe()
pid = os.fork()
if not pid:
    os.setsid()
    os.write(go, b"x")
    {escaped}
os.read(ready, 1)
with open({file!r}, "w") as file:
    file.write(str(pid))
"""


class Heard:
    """An owner that keeps what it hears."""

    def __init__(self):
        self.data = b""
        self.more = asyncio.Event()
        self.ended = asyncio.Event()

    def received(self, data):
        self.data += data
        self.more.set()

    def closed_stdout(self):
        self.data += b"."

    async def taken(self):
        pass

    def exited(self):
        self.ended.set()


@contextlib.asynccontextmanager
async def python(code):
    """Run Python code as a process, in one thread a pipe."""
    heard = Heard()
    process = Process(Launch(command=(sys.executable, "-c", code), cwd="/", env=os.environ), heard, None)
    yield process, heard
    await process.close()
    assert process.gone


def threads(process):
    return [thread for thread in threading.enumerate() if thread.name.endswith(f" {process.pid}")]


@THREADS
async def test_a_loop_without_readers_gets_threads():
    assert not can_watch_pipes(asyncio.get_running_loop())
    async with python("input()") as (process, _):
        assert len(threads(process)) == 4
    assert not threads(process)


@THREADS
async def test_what_comes_while_it_is_paused_comes_afterwards():
    async with python("import os; os.write(1, b'a'); input(); os.write(1, b'b'); input()") as (process, heard):
        process.pause()
        process.resume()
        await heard.more.wait()
        process.pause()
        process.write(b"\n", now=True)
        while process._pipes._stdout._held is None:
            await asyncio.sleep(0)
        process.resume()
        process.pause()  # before it is taken
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard.data == b"a"
        heard.more.clear()
        process.resume()
        await heard.more.wait()
        assert heard.data == b"ab"


@THREADS
async def test_what_was_left_in_a_paused_pipe_is_heard_at_the_end():
    async with python("import os; os.write(1, b'x' * 100_000)") as (process, heard):
        process.pause()
        await heard.ended.wait()
        assert heard.data == b"x" * 100_000 + b"."


@THREADS
async def test_nobody_who_floods_is_read_faster_than_it_is_heard():
    code = "import os, sys\nwhile True: os.write(1, b'x' * 65536)"
    async with python(code) as (process, heard):
        await heard.more.wait()
        process.pause()
        while process._pipes._stdout._held is None:
            await asyncio.sleep(0)
        assert len(process._pipes._stdout._held) <= READ
        process.kill()
        await heard.ended.wait()


@THREADS
async def test_what_is_sent_after_the_end_goes_nowhere():
    async with python("input()") as (process, _):
        await process.close()
        for now in (True, False):
            process.write(b"x", now=now)


@THREADS
async def test_that_nobody_reads_is_raised_once_it_is_known():
    """It is found out by writing, and the process has a moment to end by itself."""
    async with python("import os, time; os.close(0); os.write(1, b'x'); time.sleep(60)") as (process, heard):
        await heard.more.wait()
        process.write(b"\n", now=True)
        while not process._pipes._refused:
            await asyncio.sleep(0)
        assert process.alive
        with pytest.raises(BrokenPipeError):
            process.write(b"\n", now=True)
        await heard.ended.wait()
        assert process.outcome()["signal"] == "SIGKILL"


@THREADS
async def test_a_line_that_nobody_takes_does_not_outlive_its_process():
    """More than a pipe holds, to a process that reads none of it, and does not mind the end of its input."""
    async with python("import os, time; os.write(1, b'x'); time.sleep(60)") as (process, heard):
        await heard.more.wait()
        process.write(b"x" * 3_000_000, now=True)
    assert not threads(process)


@THREADS
@pytest.mark.parametrize("escaped", ["time.sleep(600)", "while True: os.write(1, b'x'); os.write(2, b'y')"])
async def test_who_escapes_with_the_pipes_keeps_nobody_waiting(escaped, tmp_path):
    """Threads cannot be called back from them: they end with whoever holds them, and tell nobody what it says."""
    file = tmp_path / "pid"
    async with python(ESCAPE.format(escaped=escaped, file=str(file))) as (process, heard):
        process.write(b"x" * 3_000_000, now=False)
        await asyncio.wait_for(heard.ended.wait(), 20)
        await process.close()
        said = heard.data
        left = {thread.name.partition(" ")[0] for thread in threads(process)}
        os.kill(int(file.read_text()), signal.SIGKILL)
        assert left - {"stdin"} == {"stdout", "stderr"}  # stdin's may have ended between two writes
        while threads(process):
            await asyncio.sleep(0)
        assert heard.data == said


def test_threads_end_without_their_loop(tmp_path):
    async def start():
        return Process(Launch(command=(sys.executable, "-c", code), cwd="/", env=os.environ), Heard(), None)

    go = tmp_path / "go"
    os.mkfifo(go)
    code = f"import os; open({str(go)!r}).read(); os.write(1, b'x' * 200_000)"
    loop = type("Blind", (asyncio.SelectorEventLoop,), {"add_reader": asyncio.AbstractEventLoop.add_reader})()
    process = loop.run_until_complete(start())
    loop.close()
    Path(go).write_text("")
    process._pipes.close_stdin()
    for thread in threads(process):
        thread.join(20)
    assert not threads(process)
    process._tree.popen.wait()


@THREADS
async def test_lines_are_unsent_while_the_process_does_not_read():
    async with python("import time; time.sleep(60)") as (process, _):
        for _ in range(100):  # the thread joins lines that come at once
            process.write(b"x" * 1_000_000, now=False)
            await asyncio.sleep(0.01)
            if process.unsent:
                break
        assert process.unsent
        process.kill()  # or the write that is under way would be waited for
