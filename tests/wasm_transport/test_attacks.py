"""What a hostile module tries, and how far it gets: files beside those granted, descriptors, the environment."""

import os
import sys
import time

import pytest

from amplifier_core import Unreachable

FILE = "secret of the host"


@pytest.fixture
def places(tmp_path):
    """Make a folder to grant, another one beside it with a secret, and links from the one to the other."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside, inside / "sub"):
        folder.mkdir()
    (outside / "secret").write_text(FILE)
    (inside / "own").write_text("mine")
    (inside / "to-secret").symlink_to(outside / "secret")
    (inside / "to-outside").symlink_to(outside)
    (inside / "by-parent").symlink_to("../outside/secret")
    (inside / "to-own").symlink_to("own")
    return inside


@pytest.fixture
async def attack(session, allow_all, compile_c, describe, places):
    """Mount the program of attacks with these capabilities, and give its calls."""

    async def mount(*capabilities, **limits):
        await session.mount("/mnt/tools", describe(compile_c("attack"), *capabilities, **limits))

        async def call(op, **args):
            return await session.invoke("/mnt/tools/probe", op, args)

        return call

    return mount


WAYS_OUT = (
    "../outside/secret",
    "sub/../../outside/secret",
    "./../outside/secret",
    "sub/../sub/../../outside/secret",
    "to-secret",
    "to-outside/secret",
    "by-parent",
    "/etc/passwd",
    "/",
    "..",
    "../..",
    "/proc/self/environ",
    "/dev/null",
    "to-outside",
    "to-outside/../outside/secret",
)


@pytest.mark.parametrize("word", ["read", "write"])
async def test_no_path_leads_out_of_a_folder(attack, places, word):
    call = await attack(f"fs:{word}:{places}")
    assert (await call("read", path="own"))["text"] == "mine"
    assert (await call("read", path="to-own", follow=1))["text"] == "mine"
    for way in (*WAYS_OUT, str(places.parent / "outside" / "secret")):
        for follow in (0, 1):
            for op in ("read", "stat", "list") if way != "to-outside" else ("read", "list"):
                told = await call(op, path=way, follow=follow, oflags=2 if op == "list" else 0)
                if op == "stat" and not follow and way in ("to-secret", "by-parent"):
                    continue  # that is about the link, which is inside
                assert told["errno"], (op, way, follow)
                assert FILE not in told["text"]


async def test_what_is_read_only_stays_so(attack, places):
    call = await attack(f"fs:read:{places}")
    tried = [
        await call("write", path="new", oflags=1, write=1, text="x"),
        await call("write", path="own", write=1, text="x"),
        await call("write", path="own", oflags=8, write=1, text="x"),
        await call("read", path="own", oflags=8),
        await call("truncate", path="own", write=1, size=0),
        await call("truncate", path="own", size=0),
        await call("mkdir", path="new"),
        await call("rmdir", path="sub"),
        await call("unlink", path="own"),
        await call("rename", path="own", to="moved"),
        await call("hardlink", path="own", to="second"),
        await call("symlink", path="link", to="own"),
        await call("touch", path="own"),
        await call("rights"),
        await call("write", path="own", write=1, text="x"),
    ]
    assert all(told["errno"] for n, told in enumerate(tried) if n != 13)
    assert sorted(os.listdir(places)) == ["by-parent", "own", "sub", "to-outside", "to-own", "to-secret"]
    assert (places / "own").read_text() == "mine"


async def test_what_may_be_written_is_inside(attack, places):
    call = await attack(f"fs:write:{places}")
    outside = places.parent / "outside"
    assert (await call("write", path="new", oflags=1, write=1, text="x"))["errno"] == 0
    tried = [
        await call("write", path="to-secret", follow=1, write=1, text="x"),
        await call("write", path="../outside/new", oflags=1, write=1, text="x"),
        await call("write", path="to-outside/new", oflags=1, write=1, text="x"),
        await call("rename", path="own", to="../outside/own"),
        await call("rename", path="own", to="to-outside/own"),
        await call("rename", path="../outside/secret", to="stolen"),
        await call("hardlink", path="../outside/secret", to="second"),
        await call("hardlink", path="to-secret", follow=1, to="second"),
        await call("unlink", path="to-outside/secret"),
        await call("unlink", path="../outside/secret"),
        await call("mkdir", path="../new"),
        await call("symlink", path="absolute", to="/etc/passwd"),
        await call("touch", path="to-secret", follow=1),
    ]
    assert all(told["errno"] for told in tried)
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == FILE


async def test_a_link_that_it_makes_leads_nowhere(attack, places):
    call = await attack(f"fs:write:{places}")
    made = await call("symlink", path="mine", to="../outside/secret")
    for path in ("mine", "mine/x"):
        assert FILE not in (await call("read", path=path, follow=1))["text"]
    assert made["errno"] or (await call("read", path="mine", follow=1))["errno"]


async def test_two_folders_are_apart(attack, places):
    other = places.parent / "other"
    other.mkdir()
    call = await attack(f"fs:read:{places}", f"fs:write:{other}")
    assert (await call("folders"))["text"].split() == [places.as_posix(), other.as_posix()]
    assert (await call("write", **{"in": other.as_posix()}, path="new", oflags=1, write=1, text="x"))["errno"] == 0
    both = {"in": places.as_posix(), "into": other.as_posix()}
    assert (await call("rename", **both, path="own", to="own"))["errno"]
    assert (await call("hardlink", **both, path="own", to="own"))["errno"]
    assert (places / "own").exists()


async def test_without_a_capability_there_is_nothing(attack, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    call = await attack()
    assert (await call("folders"))["text"] == ""
    assert (await call("environ"))["text"] == ""
    (name,) = (await call("args"))["text"].splitlines()
    assert name.endswith(".wasm")
    assert "/" not in name
    assert (await call("descriptors"))["n"] == 2  # what may be written to: stdout and stderr
    assert (await call("read", path="/etc/passwd"))["errno"]


async def test_the_environment_is_what_was_granted_and_what_the_descriptor_sets(
    session, allow_all, compile_c, describe, monkeypatch
):
    monkeypatch.setenv("GIVEN", "ä 1")
    monkeypatch.setenv("KEPT", "2")
    monkeypatch.delenv("ABSENT", raising=False)
    transport = {"env": {"LD_PRELOAD": "/x.so", "PYTHONPATH": "/x"}, "args": ["-v", ""]}
    module = describe(compile_c("attack"), "env:GIVEN", "env:ABSENT", transport=transport)
    await session.mount("/mnt/tools", module)
    told = (await session.invoke("/mnt/tools/probe", "environ", {}))["text"]
    assert told.encode("latin-1").decode().split("\n")[:-1] == ["GIVEN=ä 1", "LD_PRELOAD=/x.so", "PYTHONPATH=/x"]
    assert (await session.invoke("/mnt/tools/probe", "args", {}))["text"].partition("\n")[2] == "-v\n\n"


async def test_a_scratch_folder_is_its_own_and_gone_with_the_process(attack, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    call = await attack("fs:write:$tmp")
    (variable,) = (await call("environ"))["text"].splitlines()
    scratch = variable.removeprefix("TMPDIR=")
    assert (await call("folders"))["text"].split() == [scratch]
    assert (await call("write", **{"in": scratch}, path="a", oflags=1, write=1, text="x"))["errno"] == 0
    assert (await call("read", **{"in": scratch}, path="../report"))["errno"]
    with pytest.raises(Unreachable, match="exit code 3"):
        await call("exit", n=3)
    (variable,) = (await call("environ"))["text"].splitlines()
    assert variable != f"TMPDIR={scratch}"
    assert not os.path.exists(scratch)


async def test_descriptors_can_be_closed_and_moved_and_open_nothing(attack, places):
    call = await attack(f"fs:read:{places}")
    await call("renumber", **{"from": 2, "to": 3})
    for fd in (*range(3, 12), 2**31, 2**32 - 1):
        await call("close", n=fd)
    assert (await call("read", path="/etc/passwd"))["errno"]
    assert (await call("accept", n=0))["errno"]
    assert (await call("raise", n=9))["errno"]


async def test_devices_are_no_way_out(attack, tmp_path):
    (tmp_path / "dev").mkdir()
    call = await attack("fs:write:/dev/shm") if sys.platform == "linux" else await attack()
    assert (await call("read", path="../zero"))["errno"]
    assert (await call("read", path="../mem"))["errno"]


async def test_clocks_and_random_numbers_are_bounded(attack):
    call = await attack(memory_bytes=8 << 20, cpu_ms=20_000)
    assert (await call("clocks", n=20_000))["errno"] == 0
    with pytest.raises(Unreachable, match="exit code 134"):
        await call("clock", n=99)
    assert (await call("random", n=1 << 20))["errno"] == 0
    began = time.monotonic()
    with pytest.raises(Unreachable, match="exit code 134"):
        await call("random", n=2**32 - 1)
    assert time.monotonic() - began < 20
    assert (await call("sleep", n=10))["errno"] == 0


async def test_a_write_of_all_its_memory_costs_no_more_than_that(attack):
    call = await attack(memory_bytes=8 << 20)
    assert (await call("huge", n=4 << 20))["errno"] == 0
    told = await call("huge", n=2**32 - 1)
    assert told["errno"] or told["n"] <= 8 << 20


@pytest.mark.parametrize("path", ["own", "to-own", "sub", "new", "."])
async def test_no_way_to_open_it_makes_a_reader_a_writer(attack, places, path):
    before = {each.name: (each.lstat().st_mtime_ns, each.lstat().st_size) for each in (*places.iterdir(), places)}
    call = await attack(f"fs:read:{places}")
    assert (await call("change", path=path))["n"] == 0
    assert {
        each.name: (each.lstat().st_mtime_ns, each.lstat().st_size) for each in (*places.iterdir(), places)
    } == before
    assert (places / "own").read_text() == "mine"
