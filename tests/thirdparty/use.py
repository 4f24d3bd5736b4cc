"""Use the outside distribution as its user would: `python use.py FOLDER`. It says nothing unless something is wrong.

FOLDER gets the logs. The socket lies elsewhere, since the path of a socket has to be short.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from amplifier_core import BadRequest, Internal, Kernel, Timeout, Unreachable

SERVER = Path(__file__).with_name("server.py")
WORDS = "/mnt/tools/words"
AT_ONCE = 64


@contextlib.contextmanager
def server(socket):
    """Run a module server of its own process."""
    command = [sys.executable, "-I", SERVER, socket]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.stdin.close()


def words(socket, **limits):
    transport = {"type": "unixsocket", "path": socket}
    return {"name": "words", "kind": "tool", "transport": transport, "capabilities": [], "limits": limits}


@contextlib.asynccontextmanager
async def refused(kind, *expected):
    """Expect an error of this class, in one line that says all this."""
    raised = None
    try:
        yield
    except kind as error:
        raised = error
    assert raised is not None, f"nothing raised {kind.__name__}"
    assert "\n" not in raised.message, raised
    assert all(text in raised.message for text in expected), raised


async def refuses_what_does_not_fit(session, socket):
    for field, value in (("path", 5), ("path", ""), ("path", "a\0b"), ("path", "x" * 104), ("port", 80)):
        descriptor = words(socket)
        descriptor["transport"][field] = value
        async with refused(BadRequest, f"$.transport.{field}: expected"):
            await session.mount("/mnt/tools", descriptor)
    async with refused(Unreachable, socket, "No such file"):
        await session.mount("/mnt/tools", words(socket))
    for options in ({}, {"path": 5}, {"path": "events.db", "table": "events"}):
        async with refused(BadRequest, "sqlite", "expected a path"):
            await Kernel(event_log=False, sinks=[{"type": "sqlite", **options}]).__aenter__()
    async with refused(BadRequest, "sqlite", "unable to open database file"):
        await Kernel(event_log=False, sinks=[{"type": "sqlite", "path": f"{socket}/events.db"}]).__aenter__()


async def answers_many_at_once(session):
    calls = (session.invoke(WORDS, "meet", {"number": number, "of": AT_ONCE}) for number in range(AT_ONCE))
    assert await asyncio.gather(*calls) == [{"number": number} for number in range(AT_ONCE)]
    text = "to be or not to be " * 100_000  # larger than any buffer on the way
    assert await session.invoke(WORDS, "count", {"text": text}) == {"words": 600_000}


async def streams(session):
    stream = session.stream(WORDS, "spell", {"text": "to be or not"})
    assert [chunk async for chunk in stream] == ["to", "be", "or", "not"]
    assert await session.invoke(WORDS, "spell", {"text": "to be"}) == {"text": "to be"}


async def gives_up(session):
    async with refused(Timeout, WORDS):
        await session.invoke(WORDS, "wait", {}, timeout=0.2)
    task = asyncio.create_task(session.invoke(WORDS, "wait", {}))
    assert await session.invoke(WORDS, "count", {"text": ""}) == {"words": 0}  # the other one is on its way
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert await session.invoke(WORDS, "cancelled", {}) == {"count": 2}


async def survives_a_bad_server(session):
    """What is no protocol is counted. A message that is too large ends the connection; the next call has another."""
    assert await session.invoke(WORDS, "babble", {}) == {}
    beside = asyncio.create_task(session.invoke(WORDS, "wait", {}))
    async with refused(Internal, "limits.message_bytes"):
        await session.invoke(WORDS, "flood", {"size": 2_000_000})
    async with refused(Internal, "limits.message_bytes"):
        await beside
    assert await session.invoke(WORDS, "count", {"text": "a b"}) == {"words": 2}


async def is_closed_under_a_call(session):
    beside = asyncio.create_task(session.invoke(WORDS, "wait", {}))
    assert await session.invoke(WORDS, "count", {"text": ""}) == {"words": 0}
    async with asyncio.timeout(5):
        await session.unmount(WORDS)
        async with refused(Unreachable, "unmounted"):
            await beside


def check_events(log, database):
    """Hold the rows against the log: each event is there once, in order, without a gap."""
    lines = log.read_text("utf-8").splitlines()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT seq, event, status, envelope FROM events ORDER BY seq").fetchall()
    assert [row[0] for row in rows] == list(range(1, len(lines) + 1))
    assert [json.loads(row[3]) for row in rows] == [json.loads(line) for line in lines]
    invocations = [row[2] for row in rows if row[1] == "module:invoke"]
    assert invocations.count("ok") == AT_ONCE + 9
    assert invocations.count("error") == 7
    assert [row[1] for row in rows].count("module:start") == [row[1] for row in rows].count("module:exit") == 3
    assert [row[1] for row in rows].count("module:noise") == 1
    assert [row[1:3] for row in rows[-2:]] == [("session:end", "closed"), ("kernel:end", "ok")]


async def main(folder, socket):
    logging.getLogger("amplifier_core").addHandler(logging.NullHandler())  # it would tell of the noise on stderr
    log, database = folder / "run.jsonl", folder / "events.db"
    async with Kernel(event_log=log, sinks=[{"type": "sqlite", "path": str(database)}]) as kernel:
        session = await kernel.session.create({"goal": "count words", "inputs": {}})
        await refuses_what_does_not_fit(session, socket)
        with server(socket) as process:
            await session.mount("/mnt/tools", words(socket, message_bytes=2_000_000))
            await answers_many_at_once(session)
            await streams(session)
            await gives_up(session)
            await survives_a_bad_server(session)
            async with refused(Unreachable, "the module closed the connection"):
                await session.invoke(WORDS, "exit", {})
            assert process.wait(5) == 3
        async with refused(Unreachable, socket):
            await session.invoke(WORDS, "count", {"text": "a b"})
        with server(socket):
            assert await session.invoke(WORDS, "count", {"text": "a b"}) == {"words": 2}
            await is_closed_under_a_call(session)
    check_events(log, database)
    assert len(asyncio.all_tasks()) == 1
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    assert {name for name in installed if name.startswith("amplifier")} == {
        "amplifier-kernel",
        "amplifier-thirdparty-example",
        "amplifier-transport-stdio",
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="amplifier-", dir="/tmp") as short:
        asyncio.run(main(Path(sys.argv[1]), f"{short}/words.sock"))
