"""What a module mounts: a WASI program that its own grants cover, and nothing else of the host."""

import asyncio
import sys

import pytest

from amplifier_core import BadRequest, BudgetExceeded, Forbidden, Kernel, ModuleDescriptor, Unreachable
from amplifier_core.hookspecs import Host
from amplifier_transport_wasm import open_transport


@pytest.fixture
async def open_for(later, tmp_path):
    """Open a connection as a module would have it mounted, and start it with what it was granted."""
    host = Host()
    later.push_async_callback(host.close)

    async def start(module, *granted, caller="/mnt/agents/a"):
        transport = {"type": "wasm", "module": str(module)}
        told = {"name": "probe", "kind": "tool", "capabilities": list(granted), "transport": transport}
        descriptor = ModuleDescriptor.from_mapping(told, base=tmp_path, caller=caller)
        connection = open_transport(descriptor, lambda *_: None, host)
        assert connection.usage(exact=False) is None  # there is no budget
        later.push_async_callback(connection.close)
        await connection.start(descriptor.capabilities, None)
        return await connection.request("health", b"{}")

    return start


@pytest.fixture
def files(tmp_path, compile_c):
    """Make folders with a module, and links to them."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "module.wasm").write_bytes(compile_c("probe").read_bytes())
    (folder / "link.wasm").symlink_to("module.wasm")
    (folder / "sub").mkdir()
    (tmp_path / "link").symlink_to("folder")
    return folder


async def test_a_module_that_is_covered_runs(open_for, files):
    for word in (f"fs:read:{files}", f"fs:write:{files}", f"fs:read:{files.parent}"):
        assert (await open_for(files / "module.wasm", word)).ok


async def test_whatever_else_there_is_the_refusal_is_the_same(open_for, files):
    told = set()
    for path, word in (
        (files / "module.wasm", f"fs:read:{files}/sub"),
        (files / "link.wasm", f"fs:read:{files}"),
        (files / "missing.wasm", f"fs:read:{files}"),
        (files / "sub", f"fs:read:{files}"),
        (files.parent / "link" / "module.wasm", f"fs:read:{files.parent}"),
        ("/etc/passwd", "fs:write:$tmp"),
        ("/etc/missing", "fs:write:$tmp"),
    ):
        with pytest.raises(Forbidden) as caught:
            await open_for(path, word)
        told.add(caught.value.message.replace(repr(str(path)), "PATH"))
    assert len(told) == 1


async def test_a_folder_that_is_none_is_refused_with_one_word(open_for, files):
    (files / "sub" / "link").symlink_to("..")
    for path in (files / "missing", files / "sub" / "link", files / "module.wasm"):
        with pytest.raises(Forbidden, match="with no link on the way to it"):
            await open_for(files / "module.wasm", f"fs:read:{files}", f"fs:read:{path}", f"fs:write:{path}")


async def test_its_path_is_absolute_and_plain(open_for, files):
    for path in ("module.wasm", f"{files}/sub/../module.wasm", f"{files}/./module.wasm"):
        with pytest.raises(BadRequest, match="expected an absolute path without"):
            await open_for(path, f"fs:read:{files}")


async def test_the_embedders_own_paths_may_be_links(open_for, files):
    assert (await open_for("link/link.wasm", caller=None)).ok


async def test_what_was_replaced_since_it_was_granted_is_not_opened(session, allow_all, compile_c, describe, tmp_path):
    granted, other = tmp_path / "granted", tmp_path / "other"
    granted.mkdir()
    other.mkdir()
    module = describe(compile_c("attack"), f"fs:read:{granted}")
    await session.mount("/mnt/tools", module)
    granted.rmdir()
    granted.symlink_to(other)
    with pytest.raises(Unreachable):
        await session.invoke("/mnt/tools/probe", "exit", {"n": 1})
    with pytest.raises(Unreachable, match="exit code 126"):
        await session.invoke("/mnt/tools/probe", "folders", {})


async def test_a_program_that_cannot_be_started_leaves_nothing(session, compile_c, describe, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for limits in ({"memory_bytes": 16 << 20}, {}):
        with pytest.raises(Unreachable, match="No such file"):
            await session.mount("/mnt/tools", describe(compile_c("probe"), **limits))
    assert list(tmp_path.glob("amplifier-wasm-*")) == []


async def test_whoever_may_write_temporary_files_cannot_lead_the_report_elsewhere(
    session, compile_c, describe, tmp_path, monkeypatch
):
    """What stands for another module acts before the host program has opened anything."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "letter").write_text("dear friend, this is longer than a report")
    other = tmp_path / "other"
    planted = f"for run in {tmp_path}/amplifier-wasm-*; do ln -sf ../letter $run/report; done"
    other.write_text(f'#!/bin/sh\n{planted}\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(other))
    limits = {"memory_bytes": 16 << 20, "cpu_ms": 200, "timeout_ms": 60_000}
    await session.mount("/mnt/tools", describe(compile_c("attack"), **limits))
    with pytest.raises(BudgetExceeded):
        await session.invoke("/mnt/tools/probe", "loop", {})
    assert (tmp_path / "letter").read_text().startswith("dear friend")


async def test_a_scratch_folder_of_a_module_that_is_killed_is_removed(
    compile_c, describe, allow_all, session, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await session.mount("/mnt/tools", describe(compile_c("attack"), "fs:write:$tmp/deep", memory_bytes=16 << 20))
    (run,) = tmp_path.glob("amplifier-wasm-*")
    assert [each.name for each in run.iterdir()] == ["tmp"]  # the report has no name any more
    where = (await session.invoke("/mnt/tools/probe", "folders", {}))["text"].strip()
    assert where == f"{run}/tmp/deep"
    await session.invoke("/mnt/tools/probe", "write", {"path": "a", "oflags": 1, "write": 1, "text": "x"})
    await session.unmount("/mnt/tools", "probe")
    assert list(tmp_path.glob("amplifier-wasm-*")) == []


async def test_two_kernels_share_nothing_but_the_cache(compile_c, describe, log):
    async with Kernel(event_log=False, isolation=False) as one, Kernel(event_log=log, isolation=False) as other:
        sessions = [await each.session.create({"goal": "x", "inputs": {}}) for each in (one, other)]
        module = describe(compile_c("probe"), memory_bytes=16 << 20, cpu_ms=5000)
        await asyncio.gather(*(each.mount("/mnt/tools", module) for each in sessions))
        results = [await each.invoke("/mnt/tools/probe", "cancelled", {}) for each in sessions]
    assert results == [{"count": 0}] * 2


@pytest.mark.parametrize("word", ["fs:write:$tmp", "fs:write:$tmp/deep"])
async def test_without_a_place_for_temporary_files_it_says_so(
    session, allow_all, compile_c, describe, tmp_path, monkeypatch, word
):
    module = describe(compile_c("attack"), word, memory_bytes=16 << 20)
    await session.mount("/mnt/tools", module)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(Unreachable, match="exit code 1"):
        await session.invoke("/mnt/tools/probe", "exit", {"n": 1})
    with pytest.raises(Unreachable, match="no folder for temporary files: .*No such file"):
        await session.invoke("/mnt/tools/probe", "folders", {})
    monkeypatch.undo()
    assert (await session.invoke("/mnt/tools/probe", "folders", {}))["errno"] == 0
