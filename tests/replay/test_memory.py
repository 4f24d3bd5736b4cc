"""The memory that a replay takes: it does not grow with the log."""

import tracemalloc

from tests.replay.scripted import open_transport, scripted

from amplifier_core import Kernel
from amplifier_replay import replay

ECHO, AGENT = "/mnt/tools/a", "/mnt/orchestrators/o"


async def allow(event):
    return {"decision": "allow"}


async def record(path, count):
    """Record one invocation with many turns, and many calls in one span."""
    calls = [{"name": "invoke", "args": {"path": ECHO, "op": "echo", "args": {"text": "x" * 100}}}]
    calls += [{"name": "context.get"}]
    path.unlink(missing_ok=True)
    async with Kernel(event_log=path, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create({"goal": "g", "inputs": {}})
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", scripted("a", concurrency=2))
        agent = scripted("o", "orchestrator", ["sys:invoke:*", "sys:context.get"])
        await session.mount("/mnt/orchestrators", agent)
        await session.invoke(AGENT, "turns", {"syscalls": calls, "count": count}, timeout=600)
        with session.span("all"):
            for _ in range(count):
                await session.invoke(ECHO, "echo", {})


async def test_a_long_run_takes_no_more_memory_than_a_short_one(log):
    peaks = []
    for count in (20, 170):
        await record(log, count)
        tracemalloc.start()
        await replay(log, lambda _: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000
