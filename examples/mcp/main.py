"""A server of the Model Context Protocol as a tool: mounted from time.json, described, and called under a policy.

It needs the package `mcp-server-time` too; `python3 noxfile.py -s mcp` installs it with the kernel, and runs this file.
"""

import asyncio
from pathlib import Path

from amplifier_core import Event, Kernel, KernelError, Plan, load_descriptor

HERE = Path(__file__).resolve().parent
TIME = "/mnt/tools/time"
CALLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("get_current_time", {"timezone": "Etc/UTC"}),
    ("get_current_time", {"timezone": "Nowhere/Land"}),
    ("get_current_time", {}),
    ("convert_time", {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
)


async def decide(event: Event) -> dict[str, str]:
    """Allow the server, and each tool but one."""
    if event.data.get("op") == "convert_time":
        return {"decision": "deny", "reason": "this one stays shut"}
    return {"decision": "allow"}


async def main() -> None:
    """Mount the server, show what it offers, and call it."""
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan(goal="know the time", inputs={}))
        await session.register_hook("policy:request", decide)
        await session.mount("/mnt/tools", load_descriptor(HERE / "time.json"), trusted=True)
        described = await session.describe(TIME)
        print(f"{described['mcp']['name']} speaks {described['mcp']['protocol']}")
        for op, schema in described["inputs"].items():
            print(f"  {op:28} {schema.get('description', '')}".rstrip())
        for op, args in CALLS:
            try:
                result = await session.invoke(TIME, op, args)
            except KernelError as error:
                print(f"{op} {args}\n  ✗ {error}")
            else:
                print(f"{op} {args}\n  ✓ {result['structuredContent']}")


if __name__ == "__main__":
    asyncio.run(main())
