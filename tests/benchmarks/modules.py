"""The modules that calls are measured against, and how they are mounted.

It owns their descriptors. They do as little as a module can, so that a benchmark measures the kernel.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from amplifier_core import Event, Session

FAST_ECHO = (sys.executable, str(Path(__file__).parents[1] / "modules" / "fast_echo.py"))
FAST_CALLER = (sys.executable, str(Path(__file__).with_name("fast_caller.py")))
FAST_HTTP = (sys.executable, str(Path(__file__).with_name("fast_http.py")))
FAST_NATS = (sys.executable, str(Path(__file__).with_name("fast_nats.py")))
FAST_GRPC = (sys.executable, str(Path(__file__).with_name("fast_grpc.py")))
_IDLE = ("sh", str(Path(__file__).with_name("idle.sh")))
_MOUNTED_AT_ONCE = 16


def text_of(size: int) -> dict[str, str]:
    """Make arguments whose JSON has so many bytes."""
    return {"text": "x" * (size - len('{"text":""}'))}


def descriptor(name: str, transport: dict[str, Any]) -> dict[str, Any]:
    """Describe a tool that needs no capability."""
    return {"name": name, "kind": "tool", "capabilities": [], "transport": transport}


async def mount_fast_echo(session: Session) -> str:
    """Mount the echo and give its path."""
    transport = {"type": "stdio", "command": [*FAST_ECHO, "echo"]}
    return (await session.mount("/mnt/tools", descriptor("echo", transport), trusted=True))["path"]


async def mount_fast_callers(session: Session, count: int) -> list[str]:
    """Mount modules that call the kernel, allow that, and give their paths."""
    await session.register_hook("policy:request", _allow)
    paths = []
    for n in range(count):
        transport = {"type": "stdio", "command": [*FAST_CALLER, f"caller-{n}"]}
        caller = {
            **descriptor(f"caller-{n}", transport),
            "kind": "orchestrator",
            "capabilities": ["sys:invoke", "sys:mounts"],
        }
        paths.append((await session.mount("/mnt/orchestrators", caller, trusted=True))["path"])
    return paths


async def _allow(_: Event) -> dict[str, Any]:
    return {"decision": "allow", "scope": "session"}


async def mount_idle(session: Session, count: int) -> int:
    """Mount idle modules, several at once. Give how many there are: fewer if the host starts no more."""
    places = asyncio.Semaphore(_MOUNTED_AT_ONCE)

    async def mount(n: int) -> bool:
        async with places:
            try:
                await session.mount("/mnt/tools", idle(n), trusted=True)
            except Unreachable:
                return False
            return True

    return sum(await asyncio.gather(*(mount(n) for n in range(count))))


def idle(n: int) -> dict[str, Any]:
    """Describe one idle module."""
    name = f"idle-{n}"
    return descriptor(name, {"type": "stdio", "command": [*_IDLE, name]})
