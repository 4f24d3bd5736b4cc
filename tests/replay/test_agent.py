"""The agent of examples/agent: recorded, replayed, compared with a changed orchestrator, killed and resumed."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.replay.agent import LOOP, person, record

import amplifier_module
from amplifier_replay import Difference, compare, resume

pytestmark = pytest.mark.newest

AGENT = Path(__file__).resolve().parents[2] / "examples" / "agent"
KILLS = int(os.environ.get("AMPLIFIER_TEST_KILLS", "12"))
"""At how many moments a run is killed."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A Python with the kit, which the modules start by its name."""
    home = tmp_path_factory.mktemp("installation")
    venv.create(home, symlinks=True)
    scheme = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    for package in (amplifier_module, msgspec):
        (packages / package.__name__).symlink_to(package.__path__[0])
    return sysconfig.get_path("scripts", "venv", scheme)


@pytest.fixture(autouse=True)
def python3_has_the_kit(installation, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([installation, os.environ["PATH"]]))


def copy(to):
    shutil.copytree(AGENT, to, ignore=shutil.ignore_patterns("notes", "__pycache__"))
    (to / "notes").mkdir()
    return to


@pytest.fixture
def folder(tmp_path, need):
    for program in ("node", "perl", "sh"):
        need(program)
    return copy(tmp_path / "agent")


def read(log):
    return [json.loads(line) for line in log.read_bytes().splitlines()]


async def test_the_agent_is_replayed_to_the_byte(log, folder, again):
    answer = await record(log, folder)
    assert answer.startswith("That is all")
    shutil.rmtree(folder)  # nothing of it is needed
    assert await again(log) > 100


async def test_a_changed_orchestrator_is_named_by_the_event_that_differs(log, folder):
    await record(log, folder)
    loop = {LOOP: folder / "orchestrator.json"}
    assert await compare(log, loop, trusted=True)
    source = (folder / "orchestrator.mjs").read_text()
    changed = source.replace("const OBSERVATION = 8000", "const OBSERVATION = 80")
    assert changed != source
    (folder / "orchestrator.mjs").write_text(changed)
    with pytest.raises(Difference) as caught:
        await compare(log, loop, trusted=True)
    saved = [
        event
        for event in read(log)
        if event["event"] == "module:reply" and event["module"] == LOOP and "set_fragment" in json.dumps(event["data"])
    ]
    assert caught.value.seq == saved[0]["seq"]
    assert "characters in all" in caught.value.message


def outcomes(events):
    """Count the calls that have ended, by outcome. Their values tell in which order a copy of the folder is read."""
    ended = [each for each in events if each["event"] == "module:invoke" and each["data"]["op"] != "on_event"]
    return Counter((each["module"], each["data"]["op"], each["status"]) for each in ended)


def kill_at(log, folder, lines):
    """Run the agent, and kill it as soon as its log has so many lines."""
    process = subprocess.Popen([sys.executable, "-m", "tests.replay.agent", str(log), str(folder)])
    try:
        deadline = time.monotonic() + 120
        while (not log.exists() or log.read_bytes().count(b"\n") < lines) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return log.read_bytes()


@pytest.fixture(scope="module")
def whole(installation, tmp_path_factory):
    """Record a run that is not killed. Give its answer, its outcomes, and the numbers of its first and last events."""
    place = tmp_path_factory.mktemp("whole")
    log = place / "whole.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([installation, os.environ["PATH"]]))
        answer = asyncio.run(record(log, copy(place / "agent")))
    events = read(log)
    begins = next(event["seq"] for event in events if event.get("module") == LOOP and "op" in event["data"])
    return answer, outcomes(events), begins, len(events)


@pytest.mark.parametrize("seed", range(KILLS))
async def test_an_agent_that_is_killed_at_any_moment_gives_the_answer_of_one_that_is_not(
    seed, log, folder, whole, again
):
    answer, expected, first, last = whole
    before = await asyncio.to_thread(kill_at, log, folder, random.Random(seed).randrange(first, last - 12))
    async with resume(log, hooks={person.__qualname__: person}, trusted=True, isolation=False) as run:
        assert [(await call.task)["answer"] for call in run.calls] == [answer]
    assert log.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert outcomes(read(log)) == expected
    assert (folder / "notes" / "script.md").exists()
    await again(log)
