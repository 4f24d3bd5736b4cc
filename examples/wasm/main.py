"""A tool in C as WebAssembly, confined on every system: compiled, mounted without trust, and called.

`python3 noxfile.py -s wasm` installs what it needs and runs this file.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from amplifier_core import Event, Kernel, KernelError, Plan, load_descriptor

HERE = Path(__file__).resolve().parent
MODULE = HERE.parents[1] / ".cache" / "wasm" / "wordcount.wasm"
READABLE = HERE.parent / "modules"
TOOL = "/mnt/tools/wordcount"


def compile_module() -> None:
    """Compile the tool with zig, which brings a C library for WASI. The first time it compiles that too."""
    MODULE.parent.mkdir(parents=True, exist_ok=True)
    compiler = [sys.executable, "-m", "ziglang", "cc", "--target=wasm32-wasi", "-Os"]
    stack = "-Wl,-z,stack-size=65536"  # zig's own 16 MiB would count as memory
    subprocess.run([*compiler, stack, "-o", str(MODULE), str(HERE / "wordcount.c")], check=True)


async def only_reading(event: Event) -> dict[str, str]:
    """Allow what reads, and nothing that writes."""
    wanted = event.data["capabilities"]
    return {"decision": "allow" if all(word.startswith("fs:read:") for word in wanted) else "deny"}


async def main() -> None:
    """Use the tool, and let it try what it was not granted."""
    compile_module()
    async with Kernel(event_log=False, isolation=False) as kernel:
        session = await kernel.session.create(Plan(goal="count words", inputs={}))
        await session.register_hook("policy:request", only_reading)
        await session.mount("/mnt/tools", load_descriptor(HERE / "wordcount.json"), timeout=60)
        print(await session.invoke(TOOL, "count", {"text": "to be or not to be"}))
        print(await session.invoke(TOOL, "count_file", {"path": str(READABLE / "policy.json")}))
        for path in ("/etc/passwd", f"{READABLE}/../quickstart.py"):
            try:
                await session.invoke(TOOL, "count_file", {"path": path})
            except KernelError as error:
                print(f"{error.code}: {error.message}")


asyncio.run(main())
