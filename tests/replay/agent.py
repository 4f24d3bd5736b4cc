"""The agent of examples/agent as a program that is recorded: agent.py LOG FOLDER."""

import asyncio
import sys
from pathlib import Path

from amplifier_core import Kernel, Plan, load_descriptor

LOOP = "/mnt/orchestrators/loop"
MODULES = {
    "provider_script.json": "/mnt/providers",
    "orchestrator.json": "/mnt/orchestrators",
    "context.json": "/mnt/context",
    "files.json": "/mnt/tools",
    "grep.json": "/mnt/tools",
    "note.json": "/mnt/tools",
}
ARGS = {"goal": "Look around, and leave a note of it.", "compact_above": 1500}


async def person(event):
    """Say yes where the policy of the example leaves it to a person."""
    if event.data.get("op") == "write":
        return {"decision": "allow"}
    return {"decision": "abstain", "scope": "session"}


async def record(log, folder):
    """Record a run of the agent, and give its answer."""
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.mount("/mnt/hooks", load_descriptor(folder / "policy.json"), trusted=True)
        await session.register_hook("policy:request", "/mnt/hooks/policy", priority=10)
        await session.register_hook("policy:request", person, priority=20)
        for file, path in MODULES.items():
            await session.mount(path, load_descriptor(folder / file), trusted=True)
        return (await session.stream(LOOP, "run", ARGS).result())["answer"]


if __name__ == "__main__":
    asyncio.run(record(*map(Path, sys.argv[1:])))
