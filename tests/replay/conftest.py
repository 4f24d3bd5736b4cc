"""Fixtures of the tests of replays: a run that is recorded, and then done again from its log."""

import pytest

from amplifier_core import Kernel
from amplifier_replay import replay


@pytest.fixture
def again():
    """Replay a log. The new one has to be equal to the byte."""

    async def again(log):
        lines = []
        count = await replay(log, lines.append)
        assert b"".join(lines) == log.read_bytes()
        assert count == len(lines)
        return count

    return again


@pytest.fixture
def run(log, again):
    """Run a program with a kernel that records, then replay it."""

    async def run(program, **settings):
        async with Kernel(**{"event_log": log, "isolation": False, "recording": True, **settings}) as kernel:
            session = await kernel.session.create({"goal": "test", "inputs": {}})
            await program(kernel, session)
        return await again(log)

    return run
