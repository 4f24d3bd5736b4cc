"""Recorded runs with some modules for real: what counts as the same, and where a changed one is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from amplifier_core import BadRequest, Forbidden, Kernel, Plan
from amplifier_replay import Difference, compare
from amplifier_replay._meaning import Meaning

MODULES = Path(__file__).parents[1] / "modules"
CALLER = "/mnt/orchestrators/caller"


def program(file, name, kind="tool", capabilities=()):
    words = json.dumps(list(capabilities))
    command = [sys.executable, str(MODULES / file), "--name", name, "--kind", kind, "--capabilities", words]
    transport = {"type": "stdio", "command": command}
    return {"name": name, "kind": kind, "capabilities": list(capabilities), "transport": transport}


async def allow(event):
    return {"decision": "allow"}


def calls(*numbers):
    args = [{"path": "/mnt/tools/echo", "op": "echo", "args": {"n": n}} for n in numbers]
    return {"syscalls": [{"name": "invoke", "args": each} for each in args], "state": None}


@pytest.fixture
async def recorded(log):
    """Record a run: an orchestrator that calls a tool, in three turns."""
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", program("echo.py", "echo"), trusted=True)
        await session.mount("/mnt/orchestrators", caller(), trusted=True)
        await session.invoke(CALLER, "call", calls(1, 2, 3))
        syscall = calls(4)["syscalls"][0]
        await session.invoke(CALLER, "turns", {"count": 3, "syscall": syscall})
    return log


def caller():
    return program("caller.py", "caller", "orchestrator", ["sys:invoke:*"])


@pytest.fixture
def changed(tmp_path):
    """Write a caller whose text is another one, and give its descriptor's file."""

    def change(old, new):
        source = (MODULES / "caller.py").read_text()
        assert source.count(old) == 1
        (tmp_path / "changed.py").write_text(source.replace(old, new))
        descriptor = caller()
        descriptor["transport"]["command"][1] = str(tmp_path / "changed.py")
        (tmp_path / "changed.json").write_text(json.dumps(descriptor))
        return tmp_path / "changed.json"

    return change


async def test_modules_that_are_the_same_do_the_same(recorded):
    everything = {CALLER: None, "/mnt/tools/echo": None}
    for real in ({}, {CALLER: None}, {"/mnt/tools/echo": None}, everything):
        assert await compare(recorded, real, trusted=True) == len(recorded.read_bytes().splitlines())


async def test_the_first_call_that_is_another_one_is_named(recorded, changed):
    new = changed('[args["syscall"]]', '[args["syscall"]] if done != 1 else [{**args["syscall"], "name": "mounts"}]')
    with pytest.raises(Difference) as caught:
        await compare(recorded, {CALLER: new}, trusted=True)
    line = json.loads(recorded.read_bytes().splitlines()[caught.value.seq - 1])
    assert (line["event"], line["data"]["pending"]["state"]) == ("module:reply", {"done": 1})
    place = f"seq {caught.value.seq}, module:reply of {CALLER}"
    expected = '$.data.pending.syscalls[0].name "invoke", got "mounts"'
    assert caught.value.message == f"{place}: expected {expected}"


async def test_one_call_more_is_a_difference(recorded, changed):
    new = changed('args["count"] else', 'args["count"] + 1 else')
    with pytest.raises(Difference) as caught:
        await compare(recorded, {CALLER: new}, trusted=True, timeout=1)
    line = json.loads(recorded.read_bytes().splitlines()[caught.value.seq - 1])
    assert (line["event"], line["data"]["result"]) == ("module:invoke", 3)
    assert "module:reply" in caught.value.got


async def test_a_module_that_fails_to_start_is_a_difference_that_says_why(recorded, changed):
    new = changed(
        '"""A module that calls the kernel', 'raise SystemExit("not today")\n"""A module that calls the kernel'
    )
    with pytest.raises(Difference, match="not today"):
        await compare(recorded, {CALLER: new}, trusted=True)


async def test_a_module_that_hangs_is_given_up(recorded, changed):
    new = changed("def turns(args, resume):\n", "def turns(args, resume):\n    import time; time.sleep(60)\n")
    with pytest.raises(Difference, match="got nothing"):
        await compare(recorded, {CALLER: new}, trusted=True, timeout=0.5)


async def test_nothing_runs_for_real_that_is_not_trusted(recorded):
    with pytest.raises((Difference, Forbidden), match="confines nothing"):
        await compare(recorded, {CALLER: None})


async def test_a_path_that_the_run_does_not_have_is_refused(recorded):
    with pytest.raises(BadRequest, match="/mnt/tools/nonesuch: the recorded run has mounted no module there"):
        await compare(recorded, {"/mnt/tools/nonesuch": None})


async def test_the_name_of_the_log_may_be_text(recorded):
    assert await compare(str(recorded), {}) == len(recorded.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        ({"a": [1, "x", None, True, 1.5]}, {"a": [1, "x", None, True, 1.5]}),
        ("run 6f1c2c1e-5b1f-4f5e-9b1a-0d6a4d8f2b11", "run 0a1b2c3d-5b1f-4f5e-9b1a-0d6a4d8f2b11"),
        ("at 2026-11-29T03:57:21Z", "at 2026-12-01T10:00:00.5+01:00"),
        ("trace 4bf92f3577b34da6a3ce929d0e0e4736", "trace 00000000000000000000000000000abc"),
        (1_795_923_894.77, 1_795_999_999),
        (1_795_923_894_770, 1_795_999_999_000),
    ],
)
def test_values_that_mean_the_same(recorded, now):
    assert Meaning().same(recorded, now)


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        (1, 2),
        (1, True),
        (1, 1.0),
        (1, None),
        ("1", 1),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, [1]),
        ("a", "b"),
        ("run 6f1c2c1e-5b1f-4f5e-9b1a-0d6a4d8f2b11", "run"),
        (1_795_923_894, 1_795_923_894_770),
        (1_795_923_894, True),
    ],
)
def test_values_that_do_not(recorded, now):
    assert not Meaning().same(recorded, now)


def test_one_id_stands_for_one_other():
    one, two, three = (f"{n:032x}".replace("0", "a") for n in (1, 2, 3))
    meaning = Meaning()
    assert meaning.same([one, one], [two, two])
    assert meaning.same(one, two)
    assert not meaning.same(one, three)


def test_a_recorded_run_is_a_regression_test(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(replay_run):\n    replay_run('nonesuch.jsonl')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # this repository's settings are not those of others
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nonesuch.jsonl: cannot be read: No such file or directory" in done.stdout


def test_the_fixture_gives_the_number_of_events(replay_run, recorded_before):
    assert replay_run(recorded_before) == len(recorded_before.read_bytes().splitlines())


@pytest.fixture
def recorded_before(log):
    import asyncio  # noqa: PLC0415 - this test alone is no `async def`

    async def record():
        async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
            await kernel.session.create(Plan(goal="test", inputs={}))

    asyncio.run(record())
    return log
