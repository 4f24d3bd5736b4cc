"""Files that are no module, or one that cannot run: what is said, and that it takes bounded time."""

import os
import sys

import pytest
import wasmtime

from amplifier_core import BadRequest, Forbidden, Unreachable
from amplifier_transport_wasm import _pseudo_files
from amplifier_transport_wasm._pseudo_files import why_closed

GOOD = wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))')
COMPONENT = b"\0asm\x0d\0\1\0"


def importing(module, name):
    return wasmtime.wat2wasm(f'(module (import "{module}" "{name}" (func)) (func (export "_start")))')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with"),
        (b"\0asm", "core module"),
        (b"#!/bin/sh\n", "begins with"),
        (b'(module (func (export "_start")))', "begins with"),
        (GOOD[:-4], "cannot run"),
        (GOOD + b"\1", "cannot run"),
        (GOOD[:8] + os.urandom(2000), "cannot run"),
        (COMPONENT, "component"),
        (importing("env", "system"), "unknown import"),
        (importing("wasi_snapshot_preview1", "proc_fork"), "unknown import"),
        (importing("wasi_snapshot_preview1", "fd_write"), "incompatible import type"),
        (wasmtime.wat2wasm("(module)"), "_start"),
        (wasmtime.wat2wasm('(module (memory (export "_start") 1))'), "_start"),
        (wasmtime.wat2wasm('(module (func (export "_start") (param i32)))'), "_start"),
        (wasmtime.wat2wasm("(module (memory i64 1))"), "memory64"),
        (wasmtime.wat2wasm("(module (memory 1 2 shared))"), "threads"),
        (wasmtime.wat2wasm("(module (memory 1) (memory 1))"), "multi"),
        (wasmtime.wat2wasm("(module (type (array i8)))"), "gc"),
        (wasmtime.wat2wasm("(module (tag))"), "exceptions"),
        (wasmtime.wat2wasm('(module (table 2000000 funcref) (func (export "_start")))'), "table limits"),
        (wasmtime.wat2wasm(f'(module {"(table 1 funcref)" * 5} (func (export "_start")))'), "table count"),
        (wasmtime.wat2wasm('(module (func (export "_start") unreachable))'), "unreachable"),
        (GOOD, "exit code 0"),
    ],
    ids=range(23),
)  # fmt: skip
async def test_what_cannot_run_is_told(session, describe, tmp_path, content, says):
    (tmp_path / "module.wasm").write_bytes(content)
    with pytest.raises(Unreachable) as caught:
        await session.mount("/mnt/tools", describe("module.wasm"), timeout=60)
    told = f"{caught.value.message} {caught.value.details.get('stderr', '')}"
    assert says in told
    assert "Traceback" not in told


async def test_a_file_that_is_too_large_is_not_read(session, describe, tmp_path):
    with (tmp_path / "module.wasm").open("wb") as file:
        file.write(GOOD)
        file.truncate((64 << 20) + 1)
    with pytest.raises(Unreachable, match="126") as caught:
        await session.mount("/mnt/tools", describe("module.wasm"), timeout=60)
    assert "expected at most 67108864 bytes" in caught.value.details["stderr"]


async def test_what_is_no_file_is_not_read(session, describe, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, says in (("pipe", "no file"), ("/dev/zero", "no file"), (".", "no file"), ("missing", "No such file")):
        with pytest.raises(Unreachable) as caught:
            await session.mount("/mnt/tools", describe(path), timeout=60)
        assert says in caught.value.details["stderr"]


@pytest.mark.parametrize(
    ("transport", "says"),
    [
        ({"module": None}, ".module: expected the path of a .wasm file, got nothing"),
        ({"module": ""}, ".module: expected the path"),
        ({"module": "a\0b"}, ".module: expected the path"),
        ({"module": "x" * 5000}, ".module: expected the path"),
        ({"command": ["sh"]}, ".command: expected one of type, module, args, env"),
        ({"args": "-v"}, ".args: expected a list of text"),
        ({"args": ["a\0"]}, ".args: expected a list of text"),
        ({"args": ["a"] * 1025}, ".args: expected at most 1024 texts, got 1025"),
        ({"args": ["a" * (1 << 20), "b"]}, ".args: expected at most 1048576 characters"),
        ({"env": []}, ".env: expected an object of text"),
        ({"env": {"A": 1}}, ".env: expected an object of text"),
        ({"env": {"A=B": "1"}}, ".env: expected names of variables"),
        ({"env": {f"A{n}": "" for n in range(1025)}}, ".env: expected at most 1024 variables"),
    ],
)
async def test_wrong_fields_are_named(session, describe, transport, says):
    with pytest.raises(BadRequest) as caught:
        await session.mount("/mnt/tools", describe("module.wasm", transport=transport))
    assert says in caught.value.message


async def test_a_network_cannot_be_granted(session, allow_all, describe):
    module = describe("module.wasm", "net:connect:*", "net:listen:*", "env:A")
    for trusted in (False, True):
        with pytest.raises(Forbidden, match="transport 'wasm' cannot enforce net:connect:") as caught:
            await session.mount("/mnt/tools", module, trusted=trusted)
        assert caught.value.details["capabilities"] == ["net:connect:*", "net:listen:*"]


@pytest.mark.skipif(sys.platform != "linux", reason="these folders are Linux's")
async def test_processes_and_devices_are_opened_to_nobody(session, allow_all, compile_c, describe, tmp_path):
    (tmp_path / "link").symlink_to("/proc/self")
    for path in ("/", "/proc", "/proc/self", "/proc/self/fd", "link", "/sys", "/dev", "/dev/fd", "/sys/kernel"):
        for word in ("read", "write"):
            with pytest.raises(Forbidden, match="nothing of the host's processes and devices"):
                await session.mount("/mnt/tools", describe(compile_c("attack"), f"fs:{word}:{path}"))
    await session.mount("/mnt/tools", describe(compile_c("attack"), "fs:write:/dev/shm"))


def test_a_file_system_of_processes_is_closed_wherever_it_is(monkeypatch, tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
        "23 22 0:21 / /srv/new\\040root/proc rw,nosuid shared:1 - proc proc rw\n"
        "24 22 0:22 / /srv/data rw - ext4 /dev/sdb rw\n"
    )
    monkeypatch.setattr(_pseudo_files, "_TABLE", str(table))
    told = {path: why_closed(path) for path in ("/srv", "/srv/new root/proc/1", "/srv/data", "/srv/new", "/home")}
    assert [path for path, why in told.items() if why] == ["/srv", "/srv/new root/proc/1"]
    assert told["/srv"].startswith("/srv/new root/proc lies in it")
    table.unlink()
    assert why_closed("/srv") == ""
    assert why_closed("/dev/fd").startswith("it lies in /dev")


async def test_what_is_granted_has_to_be_a_folder_that_is_there(session, allow_all, describe, tmp_path):
    (tmp_path / "file").touch()
    for word, says in (("fs:read:file", "is a file"), ("fs:write:missing", "is not there")):
        with pytest.raises(Unreachable, match=says):
            await session.mount("/mnt/tools", describe("module.wasm", word))
