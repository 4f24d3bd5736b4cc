"""A gRPC service as a module: served by the kit for modules, mounted by its target, called and streamed from.

`python3 noxfile.py -s grpc` installs what it needs and runs this file. A real service runs elsewhere, with TLS: its
descriptor has no `"tls": false`.
"""

import asyncio

from amplifier_core import Kernel, Plan
from amplifier_module import Context, Module

module = Module("wordcount")
TOOL = "/mnt/tools/wordcount"


@module.op
def count(text: str) -> dict[str, int]:
    """Count the words of a text."""
    return {"words": len(text.split())}


@module.op
def spell(text: str, context: Context) -> int:
    """Give the words of a text one by one."""
    words = text.split()
    for word in words:
        context.chunk(word)
    return len(words)


async def main() -> None:
    """Serve the module on a free port, and use it."""
    server = await module.grpc()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = {"type": "grpc", "target": f"dns:///127.0.0.1:{port}", "tls": False}
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan(goal="count words", inputs={}))
        await session.mount("/mnt/tools", {**module.descriptor(), "transport": transport})
        print(await session.invoke(TOOL, "count", {"text": "to be or not to be"}))
        async with session.stream(TOOL, "spell", {"text": "that is the question"}) as stream:
            print([chunk async for chunk in stream])
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
