"""A process that is forked from the kernel's: the kernel refuses there, and holds nothing open."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import weakref

import pytest
from tests.conftest import MODULES

from amplifier_core import BadRequest, Kernel, Plan, Timeout
from amplifier_core.hookspecs import _fork, watch_forks

if not hasattr(os, "fork"):
    pytest.skip("there is no fork on this system", allow_module_level=True)

PROGRAM = r"""
import asyncio, json, os, signal, sys
from amplifier_core import BadRequest, Kernel, Plan
log, echo, mode = sys.argv[1:]

def opened():
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        try: links[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError: pass
    return links

def look(before, kernel, session):
    said = {"open": [name for fd, name in opened().items() if fd not in before and name != "/dev/null"]}
    try: session.emit("my:child", {})
    except BadRequest as error: said["emit"] = error.message
    async def calls():
        for name, call in {"create": lambda: kernel.session.create(Plan("x")), "mounts": session.mounts,
                           "invoke": lambda: session.invoke("/mnt/tools/echo", "echo", {})}.items():
            try: await call()
            except BadRequest as error: said[name] = error.message
        await kernel.close()
        async with session_block(session): pass
        async with Kernel(event_log=log + ".child") as own:
            await own.session.create(Plan("mine"))
    asyncio.run(calls())
    return said

class session_block:
    def __init__(self, session): self.session = session
    async def __aenter__(self): pass
    async def __aexit__(self, *error): await self.session.__aexit__(*error or (None,) * 3)

async def main():
    before = opened()
    kernel = await Kernel(event_log=log, isolation=False).open()
    session = await kernel.session.create(Plan("x"))
    D = {"kind": "tool", "capabilities": []}
    local = {"type": "stdio", "command": [sys.executable, echo]}
    await session.mount("/mnt/tools", {**D, "name": "echo", "transport": local}, trusted=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if mode == "killed": signal.pause()
        os.write(write, json.dumps(look(before | {str(fd): "" for fd in (read, write)}, kernel, session)).encode())
        os._exit(0)
    print(child, next(e["data"]["pid"] for e in map(json.loads, open(log)) if e["event"] == "module:start"), flush=True)
    if mode == "killed": os.kill(os.getpid(), signal.SIGKILL)
    said = json.loads(os.read(read, 65536))
    os.waitpid(child, 0)
    session.emit("my:parent", {})
    assert await session.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
    await kernel.close()
    print(json.dumps(said))

asyncio.run(main())
"""
FORKED = "the kernel belongs to the process from which this one was forked: make another kernel here"


@pytest.fixture
def start(log):
    started = []

    def run(mode):
        command = [sys.executable, "-c", PROGRAM, str(log), str(MODULES / "echo.py"), mode]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_the_child_refuses_and_holds_nothing_open(start, events):
    out, _ = start("asked").communicate(timeout=60)
    said = json.loads(out.splitlines()[-1])
    held = [name for name in said.pop("open") if name != "anon_inode:[eventpoll]" and "socket:" not in name]
    assert held == [], "beside what belongs to the loop of asyncio"
    assert said == dict.fromkeys(("emit", "create", "mounts", "invoke"), FORKED)
    assert [each["event"] for each in events() if each["event"].startswith("my:")] == ["my:parent"]


def test_a_module_ends_with_the_kernel_though_a_fork_lives_on(start):
    process = start("killed")
    assert process.stdout
    child, module = map(int, process.stdout.readline().split())
    pidfd = os.pidfd_open(module)
    try:
        asyncio.run(asyncio.wait_for(_end(pidfd), 10))
    finally:
        os.close(pidfd)
        os.kill(child, signal.SIGKILL)


async def _end(pidfd):
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)


# What happens in the child, done here: coverage does not see into one that is killed.


async def test_a_kernel_refuses_once_its_process_is_a_fork(log, events):
    kernel = await Kernel(event_log=log).open()
    session = await kernel.session.create(Plan("x"))
    runtime = kernel._runtime
    assert runtime
    for part in (runtime.bus, runtime.deadlines):
        part.after_fork()
    with pytest.raises(BadRequest, match=FORKED):
        session.emit("my:note", {})
    with pytest.raises(BadRequest, match=FORKED):
        await session.mounts()
    await session.__aexit__(None, None, None)
    await kernel.close()
    assert [each["event"] for each in events()] == ["session:start"]
    runtime.bus.close()


async def test_a_session_of_a_fork_is_not_ended_with_its_block(log, events):
    kernel = await Kernel(event_log=log).open()
    async with await kernel.session.create(Plan("x")):
        assert kernel._runtime
        kernel._runtime.deadlines.after_fork()
    assert [each["event"] for each in events()] == ["session:start"]
    kernel._runtime.bus.close()


async def test_nothing_is_sent_to_a_module_in_the_child(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    mount = session._state.namespace.mounts["/mnt/tools/echo"]
    mount.module.connection._current.child._pipes.after_fork()
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/echo", "echo", {}, timeout=0.2)


def test_a_socket_is_closed_and_its_number_stays_taken():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _fork.close_socket(ours)
        assert theirs.recv(1) == b""
        assert os.read(ours.fileno(), 1) == b""
    _fork.close_socket(ours)
    _fork.close_socket(None)


def test_who_fails_does_not_keep_the_others_open_here(monkeypatch):
    called = []

    class Owner:
        def after_fork(self):
            called.append(self)
            raise OSError("no")

    owners = [Owner(), Owner()]
    monkeypatch.setattr(_fork, "_owners", weakref.WeakSet(owners))
    _fork._leave()
    assert set(called) == set(owners)


GOES_ON = r"""
import asyncio, os, sys
from amplifier_core import Kernel, Plan
log, echo, mark = sys.argv[1:]

async def main():
    kernel = await Kernel(event_log=log, isolation=False).open()
    session = await kernel.session.create(Plan("x"))
    local = {"type": "stdio", "command": [sys.executable, echo]}
    module = {"name": "echo", "kind": "tool", "capabilities": [], "transport": local}
    await session.mount("/mnt/tools", module, trusted=True)
    call = asyncio.create_task(session.invoke("/mnt/tools/echo", "sleep", {"seconds": 0.5}))
    await asyncio.sleep(0.1)
    parent = os.getpid()
    if os.fork() == 0:
        files = [open(mark, "a") for _ in range(20)]  # they have the numbers of what was closed
        call.cancel()
        try: await call
        except BaseException: pass
        finally: os._exit(0)
    os.wait()
    print(await call, await session.invoke("/mnt/tools/echo", "echo", {"n": 1}), flush=True)
    await kernel.close()

asyncio.run(main())
"""


def test_a_child_that_goes_on_disturbs_neither_the_module_nor_files_of_its_own(log, tmp_path):
    command = [sys.executable, "-c", GOES_ON, str(log), str(MODULES / "echo.py"), str(tmp_path / "mark")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{'seconds': 0.5} {'n': 1}\n", done.stderr
    assert (tmp_path / "mark").read_bytes() == b""


def test_what_fails_in_the_child_does_not_keep_the_others_open():
    class Owner:
        def __init__(self, fault=None):
            self.read, self.write = os.pipe()
            self.fault = fault
            watch_forks(self)

        def after_fork(self):
            os.close(self.write)
            if self.fault:
                raise self.fault

    owners = [Owner(RuntimeError("no")), Owner(OSError("no")), Owner()]
    if (child := os.fork()) == 0:
        signal.pause()
    try:
        for owner in owners:
            os.close(owner.write)
            assert os.read(owner.read, 1) == b""
            os.close(owner.read)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
