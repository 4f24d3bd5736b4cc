"""A run that goes on live from its middle, in a log of its own."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.replay.scripted import open_transport, scripted
from tests.replay.test_compare import calls, program

from amplifier_core import BadRequest, Kernel
from amplifier_replay import Difference, UnusableLog, __main__, fork, replay, resume

CALLER, ECHO = "/mnt/orchestrators/caller", "/mnt/tools/echo"
CAPABILITIES = ["sys:invoke:*"]


def caller():
    return program("caller.py", "caller", "orchestrator", CAPABILITIES)


async def allow(event):
    return {"decision": "allow"}


HOOKS = {"allow": allow}


@pytest.fixture
def recorded(log):
    async def record():
        async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
            session = await kernel.session.create({"goal": "test", "inputs": {}})
            await session.register_hook("policy:request", allow)
            await session.mount("/mnt/tools", program("echo.py", "echo"), trusted=True)
            await session.mount("/mnt/orchestrators", caller(), trusted=True)
            await session.invoke(CALLER, "call", calls(1))
            await session.invoke(CALLER, "call", calls(2, 3))

    asyncio.run(record())
    return log


def read(log):
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def seq_of(log, event, module, nth=0):
    return [each["seq"] for each in read(log) if each["event"] == event and each.get("module") == module][nth]


@pytest.fixture
def new(tmp_path):
    return tmp_path / "new.jsonl"


async def forked_at(recorded, until, new, **more):
    async with fork(recorded, until, new, hooks=HOOKS, trusted=True, **more) as run:
        return [await call.task for call in run.calls]


def test_a_fork_begins_with_the_run_and_goes_on_with_another_module(recorded, new, tmp_path):
    source = (tmp_path / "other.py", tmp_path / "other.json")
    told = program("echo.py", "echo")
    text = Path(told["transport"]["command"][1]).read_text()
    source[0].write_text(text.replace("        return args\n", '        return "other"\n', 1))
    told["transport"]["command"][1] = str(source[0])
    source[1].write_text(json.dumps(told))
    before, until = recorded.read_bytes(), seq_of(recorded, "module:pre_invoke", ECHO, 1)
    (answer,) = asyncio.run(forked_at(recorded, until, new, descriptors={ECHO: source[1]}))
    assert [each["result"] for each in answer["results"]] == ["other", "other"]
    assert recorded.read_bytes() == before
    assert new.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
    lines = new.read_bytes().splitlines(keepends=True)
    assert before.startswith(b"".join(lines[:until]))
    event = json.loads(lines[until])
    assert (event["event"], event["data"]["replayed"], event["data"]["log"]) == ("kernel:fork", until, recorded.name)
    assert asyncio.run(replay(new, lambda _: None)) == len(lines)


def test_what_was_sent_is_sent_again(recorded, new):
    until = seq_of(recorded, "module:pre_invoke", ECHO)
    assert asyncio.run(forked_at(recorded, until, new)) == [
        {"results": [{"ok": True, "result": {"n": 1}}], "state": None}
    ]


def test_a_fork_can_be_forked_and_resumed(recorded, new, tmp_path):
    asyncio.run(forked_at(recorded, seq_of(recorded, "module:pre_invoke", ECHO), new))
    third = tmp_path / "third.jsonl"
    asyncio.run(forked_at(new, len(read(new)) - 3, third))
    assert [each["event"] for each in read(third)].count("kernel:fork") == 2
    third.write_bytes(b"".join(third.read_bytes().splitlines(keepends=True)[:-1]))

    async def go_on():
        async with resume(third, hooks=HOOKS, trusted=True):
            pass

    asyncio.run(go_on())
    assert asyncio.run(replay(third, lambda _: None))


def test_there_is_no_new_log_where_nothing_goes_on(recorded, new):
    with pytest.raises(UnusableLog, match="expected an event before the end of the run, got seq 9999: the last one is"):
        asyncio.run(forked_at(recorded, 9999, new))
    assert not new.exists()
    recorded.write_bytes(recorded.read_bytes().replace(b'"op":"call"', b'"op":"calL"', 1))
    with pytest.raises(Difference):
        asyncio.run(forked_at(recorded, len(read(recorded)) - 2, new))
    assert not new.exists()
    new.write_text("mine")
    with pytest.raises(BadRequest, match=r"new\.jsonl: cannot be written: File exists"):
        asyncio.run(forked_at(recorded, 3, new))
    assert new.read_text() == "mine"


@pytest.mark.parametrize("until", ["3", 0])
def test_the_event_of_a_fork_is_a_number(recorded, new, until):
    with pytest.raises(BadRequest, match=f"until: expected the number of an event, got {until!r}"):
        asyncio.run(forked_at(recorded, until, new))
    assert not new.exists()


def test_a_descriptor_for_a_module_that_the_run_does_not_have_is_refused(recorded, new):
    with pytest.raises(BadRequest, match="/mnt/tools/ecco: the recorded run has mounted no module there"):
        asyncio.run(
            forked_at(
                recorded, len(read(recorded)) - 2, new, descriptors={"/mnt/tools/ecco": program("echo.py", "echo")}
            )
        )
    assert not new.exists()


async def test_a_module_is_opened_as_the_embedder_says(log, new):
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.mount("/mnt/tools", scripted("m"))
        await session.invoke("/mnt/tools/m", "echo", {})
    async with fork(log, len(read(log)) - 3, new, open_transport=open_transport) as run:
        (session,) = run.sessions.values()
        await session.mount("/mnt/tools", scripted("n"))
        assert await session.invoke("/mnt/tools/n", "echo", {"a": 1}) == {"a": 1}
    assert await replay(new, lambda _: None)


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", *map(str, words)])
    return __main__.main()


def test_a_hook_that_the_run_does_not_have_is_refused(recorded, new, monkeypatch, capsys):
    until = seq_of(recorded, "policy:request", CALLER, 1)
    assert command(monkeypatch, recorded, "--until", until, "-o", new, "--trusted", "--allow", "alow") == 2
    assert capsys.readouterr().err == "alow: the recorded run has registered no hook of that name\n"
    assert not new.exists()


def test_the_program_forks(recorded, new, monkeypatch, capsys):
    until = seq_of(recorded, "policy:request", CALLER, 1)
    assert command(monkeypatch, recorded, "--until", until, "-o", new, "--trusted", "--allow", "allow") == 0
    assert capsys.readouterr().out == f"{CALLER} call: ok\n{until} events replayed; the fork is {new}\n"
    new.unlink()
    assert command(monkeypatch, recorded, "--until", until, "-o", new, "--allow", "allow") == 0
    assert "ran as an ordinary process; trusted=True runs it so again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--real", ECHO], "--real: expected --trusted too"),
        (["--real", ECHO, "--trusted", "-o", "x"], "--output: a run with real modules writes no log"),
        (["--real", ECHO, "--until", "3"], "--real: not with --until"),
        (["--until", "3"], "--until: expected --output too"),
        (["--until", "0", "-o", "x"], "--until: expected the number of an event, got 0"),
        (["--allow", "allow"], "--allow: expected --until too"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(words, said, recorded, monkeypatch, capsys):
    assert command(monkeypatch, recorded, *words) == 2
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1
