import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
from platformdirs import user_state_path

from amplifier_core import BadRequest, Forbidden, Kernel, KernelError, Plan
from amplifier_core.testing import SteadyClock, seeded_entropy

ECHO = "/mnt/tools/echo"


async def work(log, module, name="x"):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan(name))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        calls = (session.invoke(ECHO, "echo", {"name": name, "n": n}) for n in range(20))
        return await asyncio.gather(*calls)


async def test_two_kernels_in_one_process_share_nothing(tmp_path, module):
    first, second = await asyncio.gather(work(tmp_path / "1", module, "first"), work(tmp_path / "2", module, "second"))
    assert {result["name"] for result in first} == {"first"}
    assert {result["name"] for result in second} == {"second"}
    for log in (tmp_path / "1", tmp_path / "2"):
        lines = log.read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_kernel_in_each_of_several_threads(tmp_path, module):
    results = []

    def run(n):
        results.append(asyncio.run(work(tmp_path / f"{n}", module, f"{n}")))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4


def test_one_loop_after_the_other(tmp_path, module):
    for n in range(2):
        assert len(asyncio.run(work(tmp_path / f"{n}", module))) == 20


async def test_nothing_runs_after_close(log, module):
    before = asyncio.all_tasks()
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))

        async def observe(event):
            await asyncio.sleep(0)

        await session.register_hook("*", observe)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        calls = [asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 30})) for _ in range(5)]
        await asyncio.sleep(0.05)
    assert {type(result).__name__ for result in await asyncio.gather(*calls, return_exceptions=True)} == {"Cancelled"}
    assert asyncio.all_tasks() == before


async def test_cancelling_the_caller_at_any_await_leaves_nothing(tmp_path, module):
    """Cancel a whole run after 1, 2, 3 … steps of the loop, until a run ends before its cancellation."""
    before = asyncio.all_tasks()
    finished = False
    for steps in [*range(1, 40), *range(40, 4000, 60)]:
        task = asyncio.create_task(work(tmp_path / "log", module))
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done():
                finished = True
                break
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.done()
        assert asyncio.all_tasks() == before
        if finished:
            break


async def test_a_second_cancellation_while_closing_is_bounded_and_leaves_nothing(tmp_path, module):
    before = asyncio.all_tasks()
    started = asyncio.Event()

    async def run():
        async with Kernel(event_log=tmp_path / "log") as kernel:
            session = await kernel.session.create(Plan("x"))
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
            started.set()
            await session.invoke(ECHO, "sleep", {"seconds": 30})

    task = asyncio.create_task(run())
    await started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_a_kernel_is_opened_once(log):
    kernel = Kernel(event_log=log)
    with pytest.raises(BadRequest, match="not open yet"):
        await kernel.session.create(Plan("x"))
    async with kernel:
        with pytest.raises(BadRequest, match="opened once"):
            await kernel.__aenter__()
    with pytest.raises(BadRequest, match="opened once"):
        await kernel.__aenter__()
    with pytest.raises(BadRequest, match="the kernel is closed"):
        await kernel.session.create(Plan("x"))


async def test_close_is_idempotent_and_may_come_before_open(log):
    kernel = Kernel(event_log=log)
    await kernel.close()
    await kernel.close()
    async with Kernel(event_log=log) as kernel:
        await kernel.close()


async def test_close_ends_every_session(log, events):
    async with Kernel(event_log=log) as kernel:
        for _ in range(3):
            await kernel.session.create(Plan("x"))
    assert [event["status"] for event in events("session:end")] == ["closed"] * 3


async def test_without_a_path_the_log_is_in_the_users_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("WIN_PD_OVERRIDE_LOCAL_APPDATA", str(tmp_path))
    paths = set()
    for _ in range(2):
        async with Kernel() as kernel:
            await kernel.session.create(Plan("x"))
        assert kernel.log_path
        paths.add(kernel.log_path)
    assert len(paths) == 2
    for path in paths:
        assert path.parent == user_state_path("amplifier") / "events"
        assert tmp_path / "amplifier" in path.parents
        assert path.stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"
        assert path.read_text().count("\n") == 4


async def test_false_writes_no_log(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with Kernel(event_log=False) as kernel:
        (await kernel.session.create(Plan("x"))).emit("my:event")
    assert kernel.log_path is None
    assert list(tmp_path.iterdir()) == []


async def test_a_log_that_can_not_be_opened_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "events.jsonl"):
        with pytest.raises(BadRequest, match="^bad_request: event log .*: "):
            async with Kernel(event_log=path):
                pass


async def test_a_sink_that_can_not_be_opened_closes_the_log(log):
    with pytest.raises(BadRequest, match="sinks: jsonl: path: expected a path, got NoneType"):
        async with Kernel(event_log=log, sinks=[{"type": "jsonl"}]):
            pass


async def test_more_sinks_get_the_same_lines(log, tmp_path):
    class Lines:
        def __init__(self):
            self.lines = []
            self.closed = 0

        def write(self, line):
            self.lines.append(line)

        def close(self):
            self.closed += 1

    sink = Lines()
    second = tmp_path / "second.jsonl"
    async with Kernel(event_log=log, sinks=[sink, {"type": "jsonl", "path": second}]) as kernel:
        (await kernel.session.create(Plan("x"))).emit("my:event")
    assert b"".join(sink.lines) == log.read_bytes() == second.read_bytes()
    assert sink.closed == 1


class Full:
    def write(self, line):
        raise OSError(28, "No space left on device")

    def close(self):
        pass


async def test_an_error_in_the_body_is_not_hidden_by_close(log):
    with pytest.raises(RuntimeError, match="mine") as caught:
        async with Kernel(event_log=log, sinks=[Full()]) as kernel:
            await kernel.session.create(Plan("x"))
            raise RuntimeError("mine")
    assert "lost" in caught.value.__notes__[0]


async def deterministic_run(log):
    async with Kernel(event_log=log, clock=SteadyClock(), entropy=seeded_entropy(7)) as kernel:
        session = await kernel.session.create(Plan("x", {"n": 1}))
        await session.context.set_fragment("a", 1)
        child = await kernel.session.fork(session.session_id)
        child.emit("my:event", {"large": "x" * 10_000})
        for call in (child.invoke("/mnt/tools/none", "op", {}), session.mount("/mnt/tools", {"name": "x"})):
            with pytest.raises(KernelError):
                await call


async def test_with_a_steady_clock_and_seeded_ids_two_runs_are_the_same_to_the_byte(tmp_path):
    for name in ("1", "2"):
        await deterministic_run(tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


async def test_one_request_is_one_tree_of_spans(kernel, session, module, tmp_path, events):
    hook = module("hook.py", tmp_path / "heard", "allow", kind="hook")
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    await session.mount("/mnt/tools", module("echo.py", capabilities=["env:HOME"]), trusted=True)
    await asyncio.gather(*(session.invoke(ECHO, "echo", {"n": n}) for n in range(5)))
    requests: dict = {}
    for event in events():
        if "request_id" in event:
            requests.setdefault(event["request_id"], []).append(event)
    assert len(requests) == 2 + 5
    for tree in requests.values():
        spans = {event["span_id"] for event in tree}
        roots = {event["span_id"] for event in tree if "parent_span_id" not in event}
        assert len(roots) == 1
        assert all(event["parent_span_id"] in spans for event in tree if "parent_span_id" in event)
        assert all(len(span) == 16 and int(span, 16) for span in spans)


KILLED = """
import asyncio, os, sys
from amplifier_core import Kernel, Plan

async def main():
    async with Kernel(event_log=sys.argv[1]) as kernel:
        session = await kernel.session.create(Plan("x"))
        for n in range(100000):
            session.emit("my:event", {"n": n})
            os.write(1, b"%d\\n" % n)

asyncio.run(main())
"""


def test_killing_the_process_loses_no_event_that_emit_has_returned_from(log):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(log)], stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout
    seen = 0
    while seen < 2000:
        seen += process.stdout.read(4096).count(b"\n")
    process.kill()
    seen += process.stdout.read().count(b"\n")
    process.stdout.close()
    process.wait()
    logged = [json.loads(line)["data"]["n"] for line in log.read_text().splitlines() if "my:event" in line]
    assert logged[:seen] == list(range(seen))


def test_importing_the_core_imports_no_transport():
    code = "import sys, amplifier_core; print([name for name in sys.modules if 'transport' in name or 'httpx' in name])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[0].startswith("[") and "amplifier_transport" not in found.stdout
    assert "httpx" not in found.stdout


async def test_forbidden_has_a_message_of_one_line(session, module):
    with pytest.raises(Forbidden) as caught:
        await session.mount("/mnt/tools", module("echo.py", capabilities=["env:HOME"]), trusted=True)
    assert "\n" not in str(caught.value)


async def test_the_environment_of_the_kernel_is_not_the_modules(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    env = await session.invoke(ECHO, "env", {})
    assert set(env) - {"PATH", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "AMPLIFIER_MODULE"} == set()
    assert len(os.environ) > len(env)


async def test_the_kernel_waits_for_modules_that_are_being_closed(log, module, events):
    before = asyncio.all_tasks()
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        other = await kernel.session.create(Plan("y"))
        for each in (session, other):
            await each.mount("/mnt/tools", module("echo.py"), trusted=True)
        unmounting = asyncio.create_task(session.unmount(ECHO))
        ending = asyncio.create_task(kernel.session.end(other.session_id))
        await asyncio.sleep(0)
        unmounting.cancel()
    await ending
    with pytest.raises(asyncio.CancelledError):
        await unmounting
    assert len(events("module:exit")) == 2
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"event_limit": "8192"}, "event_limit: expected a positive integer, got '8192'"),
        ({"event_limit": -1}, "event_limit: expected a positive integer, got -1"),
        ({"observer_queue": 0}, "observer_queue: expected a positive integer, got 0"),
        ({"fragment_bytes": True}, "fragment_bytes: expected a positive integer, got True"),
        ({"event_starts": 1}, "event_starts: expected True or False, got 1"),
        ({"timeout": 0}, "timeout: expected a positive number of seconds, got 0"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options, fault):
    with pytest.raises(BadRequest) as caught:
        Kernel(event_log=False, **options)
    assert caught.value.message == fault


async def test_a_kernel_belongs_to_one_event_loop(log, module):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)

        def elsewhere(call):
            with pytest.raises(BadRequest, match="belongs to another event loop"):
                asyncio.run(call())

        for call in (lambda: session.invoke(ECHO, "echo", {}), lambda: kernel.session.create(Plan("y")), kernel.close):
            await asyncio.to_thread(elsewhere, call)
            busy = threading.Thread(target=elsewhere, args=(call,))  # while a task of the kernel's own loop is running
            busy.start()
            busy.join()
        assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}


async def test_a_coroutine_that_no_task_runs_is_refused(log, module):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        outcome = asyncio.get_running_loop().create_future()

        def drive():
            try:
                session.invoke(ECHO, "echo", {}).send(None)
            except BadRequest as error:
                outcome.set_result(error.message)

        asyncio.get_running_loop().call_soon(drive)
        assert await outcome == "the kernel has to be called from a task, not from a callback"


async def test_long_names_are_cut_in_the_log(log, module, events):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        long = "x" * 1_000_000
        for path, op, args in ((long, "echo", {}), (ECHO, long, {}), (ECHO, "fail", {"code": long, "message": long})):
            with pytest.raises(KernelError):
                await session.invoke(path, op, args)
        session.emit(long)
    assert log.stat().st_size < 50_000
