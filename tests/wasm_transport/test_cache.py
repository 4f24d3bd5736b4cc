"""Compiled code that is kept: found again, and never run if anybody has changed it."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
import wasmtime

from amplifier_core import Kernel, Unreachable
from amplifier_transport_wasm._cache import find_cache
from amplifier_transport_wasm._host._compiled import Compiled

CODE = bytes(wasmtime.wat2wasm('(module (func (export "_start")))'))
OTHER = bytes(wasmtime.wat2wasm('(module (func (export "_start") unreachable))'))
KEY = bytes(range(32))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Keep compiled code in folders of this test's own, and give both: that of the cache and that of the key."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "cache" / "amplifier" / "wasm", tmp_path / "state" / "amplifier" / "wasm"


@pytest.fixture
def kept(tmp_path):
    """A cache of the host program's, in a folder."""
    (tmp_path / "kept").mkdir()
    return Compiled(str(tmp_path / "kept"), KEY, "1.0")


@pytest.fixture
def engine():
    return wasmtime.Engine()


@pytest.fixture
def compilations(monkeypatch):
    """Count what is compiled."""
    seen, compile_now = [], wasmtime.Module.__init__

    def count(self, *args):
        seen.append(1)
        compile_now(self, *args)

    monkeypatch.setattr(wasmtime.Module, "__init__", count)
    return seen


def entries(folder):
    return sorted(Path(folder).iterdir())


def test_what_was_compiled_is_not_compiled_again(kept, engine, compilations):
    for _ in range(3):
        kept.load(engine, CODE)
    kept.load(engine, OTHER)
    assert len(compilations) == 2


def test_other_keys_kinds_and_modules_have_entries_of_their_own(kept, engine, tmp_path):
    folder = str(tmp_path / "kept")
    for each in (kept, Compiled(folder, bytes(32), "1.0"), Compiled(folder, KEY, "1.1")):
        each.load(engine, CODE)
        each.load(engine, OTHER)
    assert len(entries(folder)) == 6


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_an_entry_that_was_changed_is_compiled_anew(kept, engine, compilations, tmp_path, at):
    kept.load(engine, CODE)
    (entry,) = entries(tmp_path / "kept")
    good = entry.read_bytes()
    bad = bytearray(good)
    bad[at] ^= 1
    for content in (bytes(bad), good[:-1], good + b"\0", good[:20], b""):
        entry.write_bytes(content)
        before = len(compilations)
        kept.load(engine, CODE)
        assert len(compilations) == before + 1
        assert entry.read_bytes() == good


def test_an_entry_takes_no_other_ones_place(kept, engine, compilations, tmp_path):
    kept.load(engine, CODE)
    (entry,) = entries(tmp_path / "kept")
    kept.load(engine, OTHER)
    (other,) = set(entries(tmp_path / "kept")) - {entry}
    entry.write_bytes(other.read_bytes())
    kept.load(engine, CODE)
    assert len(compilations) == 3


def test_an_entry_that_is_no_file_is_not_read(kept, engine, compilations, tmp_path):
    kept.load(engine, CODE)
    (entry,) = entries(tmp_path / "kept")
    elsewhere = tmp_path / "elsewhere"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    kept.load(engine, CODE)
    assert not entry.is_symlink()
    entry.unlink()
    os.mkfifo(entry)
    kept.load(engine, CODE)
    assert entry.is_file()
    entry.unlink()
    entry.mkdir()
    kept.load(engine, CODE)
    assert len(compilations) == 4
    assert [each.name for each in entries(tmp_path / "kept")] == [entry.name]


def test_code_of_another_engine_is_compiled_anew(kept, engine, compilations, tmp_path):
    kept.load(engine, CODE)
    (entry,) = entries(tmp_path / "kept")
    strange = b"no compiled code"
    entry.write_bytes(kept._seal(entry.name, strange) + strange)
    kept.load(engine, CODE)
    assert len(compilations) == 2


def test_nothing_is_kept_without_a_folder_or_a_key(engine, compilations, tmp_path):
    for folder, key in (("", KEY), (str(tmp_path), b"")):
        for _ in range(2):
            Compiled(folder, key, "1.0").load(engine, CODE)
    assert len(compilations) == 4
    assert entries(tmp_path) == []


def test_a_folder_that_is_not_there_keeps_nothing(engine, tmp_path):
    Compiled(str(tmp_path / "missing"), KEY, "1.0").load(engine, CODE)


def test_the_oldest_entries_are_removed(kept, engine, tmp_path, monkeypatch):
    monkeypatch.setattr("amplifier_transport_wasm._host._compiled._ENTRIES_MAX", 3)
    old = [tmp_path / "kept" / f"{n:064x}" for n in range(4)]
    for n, each in enumerate(old):
        each.write_bytes(bytes(10))
        os.utime(each, (n, n))
    (tmp_path / "kept" / f"{4:064x}").mkdir()
    os.utime(tmp_path / "kept" / f"{4:064x}", (0, 0))
    kept.load(engine, CODE)
    assert [each.exists() for each in old] == [False, False, True, True]
    monkeypatch.setattr("amplifier_transport_wasm._host._compiled._ALL_MAX", 11_000)
    kept.load(engine, OTHER)
    assert not any(each.exists() for each in old)


def test_what_was_put_in_the_place_of_the_folder_is_left_as_it_is(kept, engine, compilations, tmp_path, monkeypatch):
    monkeypatch.setattr("amplifier_transport_wasm._host._compiled._ENTRIES_MAX", 0)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").symlink_to("home")
    before = Path.cwd()
    kept.load(engine, CODE)
    assert [each.name for each in entries(tmp_path / "home")] == ["letter"]
    assert Path.cwd() == before
    (tmp_path / "kept").unlink()
    (tmp_path / "home").rename(tmp_path / "kept")
    kept.load(engine, CODE)
    assert [each.name for each in entries(tmp_path / "kept")] == ["letter"]  # it is no entry
    assert len(compilations) == 2


def test_the_folders_are_the_users_own(folders):
    cache, state = folders
    found = find_cache()
    assert (found.folder, found.problem) == (str(cache), "")
    assert [path.stat().st_mode & 0o777 for path in (cache, state, state / "cache.key")] == [0o700, 0o700, 0o600]
    assert find_cache() == found
    assert found.key not in repr(found)


def test_of_two_keys_that_are_written_at_once_the_first_one_counts(folders, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: False)
    found = find_cache()
    assert found.key and find_cache() == found
    assert [each.name for each in folders[1].iterdir()] == ["cache.key"]


def test_a_key_is_written_where_there_are_no_links(folders, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("amplifier_transport_wasm._cache._put_new", refuse)
    found = find_cache()
    assert found.key and find_cache() == found
    assert [each.name for each in folders[1].iterdir()] == ["cache.key"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_that_others_may_write_keeps_nothing(folders, which):
    find_cache()
    folders[which].chmod(0o777)
    found = find_cache()
    assert (found.folder, found.key) == ("", "")
    assert f"{folders[which]} is not the user's own" in found.problem


def test_a_key_that_others_may_read_is_none(folders):
    find_cache()
    (folders[1] / "cache.key").chmod(0o640)
    assert "cache.key is not the user's own" in find_cache().problem


def test_a_key_that_is_a_link_or_too_short_is_none(folders):
    find_cache()
    key = folders[1] / "cache.key"
    key.write_bytes(b"short")
    assert "has 5 bytes, and not 32" in find_cache().problem
    key.unlink()
    key.symlink_to("/dev/zero")
    assert "not the user's own" in find_cache().problem


@pytest.mark.parametrize("which", [0, 1])
def test_a_link_to_a_folder_of_the_users_is_not_followed(folders, tmp_path, which):
    (tmp_path / "home").mkdir()
    folders[which].parent.parent.mkdir(parents=True)
    folders[which].parent.symlink_to("../home")
    assert "not the user's own" in find_cache().problem
    assert entries(tmp_path / "home") == []


def test_the_user_may_have_put_links_on_the_way(folders, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to("disk")
    assert find_cache().folder == str(tmp_path / "disk" / "amplifier" / "wasm")


def test_a_folder_that_cannot_be_made_keeps_nothing(folders, tmp_path):
    (tmp_path / "cache").write_text("")
    assert "not kept" in find_cache().problem


async def test_a_module_runs_from_the_cache_and_after_a_change_of_it(session, kernel, compile_c, describe, folders):
    module = describe(compile_c("probe"))
    for n in range(3):
        await session.mount("/mnt/tools", module)
        assert await session.invoke("/mnt/tools/probe", "echo", {"n": n}) == {"n": n}
        await session.unmount("/mnt/tools", "probe")
        (entry,) = entries(folders[0])
        changed = bytearray(entry.read_bytes())
        changed[len(changed) // 2] ^= 0xFF
        entry.write_bytes(changed)
    told = (await kernel.describe_host())["transports"]["wasm"]
    assert told == {"engine": f"wasmtime {wasmtime_version()}", "cache": str(folders[0])}


async def test_a_module_runs_where_nothing_can_be_kept(session, kernel, compile_c, describe, folders):
    shutil.rmtree(folders[0], ignore_errors=True)
    folders[0].parent.mkdir(parents=True)
    folders[0].write_text("")
    await session.mount("/mnt/tools", describe(compile_c("probe")))
    assert "not kept" in (await kernel.describe_host())["transports"]["wasm"]["cache"]


async def test_many_starts_at_once_share_what_was_compiled(compile_c, describe, folders, tmp_path):
    module = describe(compile_c("probe"))
    async with Kernel(event_log=False, isolation=False) as kernel:
        sessions = [await kernel.session.create({"goal": "test", "inputs": {}}) for _ in range(4)]
        await asyncio.gather(*(each.mount("/mnt/tools", module) for each in sessions))
        for each in sessions:
            assert await each.invoke("/mnt/tools/probe", "echo", {}) == {}
    assert len(entries(folders[0])) == 1


async def test_a_module_that_cannot_be_compiled_is_not_kept(session, describe, tmp_path, folders):
    (tmp_path / "bad.wasm").write_bytes(CODE + b"\1")
    with pytest.raises(Unreachable):
        await session.mount("/mnt/tools", describe("bad.wasm"))
    assert entries(folders[0]) == []


def wasmtime_version():
    from importlib.metadata import version  # noqa: PLC0415

    return version("wasmtime")
