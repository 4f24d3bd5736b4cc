"""A module made with the kit, for its tests: everything.py [asgi FD | grpc | one | small] [--descriptor[=URL]].

`one` takes one request at a time, `small` messages of 4 KiB. `asgi FD` serves the listening socket FD with uvicorn.
`grpc` serves a port, which it prints, until the end of stdin.
"""

import asyncio
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec

from amplifier_module import Cancelled, Context, Module, ModuleError

CAPABILITIES = ["sys:invoke:/mnt/tools/*", "sys:mounts", "sys:mount", "sys:unmount", "sys:describe", "sys:emit"]
CAPABILITIES += ["sys:context.get", "sys:context.set_fragment", "sys:register_hook"]
CAPABILITIES += ["net:connect:*", "sys:session.create", "sys:session.fork", "sys:session.end"]
LIMITS = {"one": {"concurrency": 1}, "small": {"message_bytes": 4096}}.get("".join(sys.argv[1:2]), {})
module = Module("everything", kind="orchestrator", version="1.0.0", capabilities=CAPABILITIES, limits=LIMITS)


@dataclass
class Place:
    name: str
    height: float = 0.0


class Tree(msgspec.Struct):
    value: int
    children: list["Tree"] = []


@module.op
def count(text: Annotated[str, "what to count in"]) -> dict[str, int]:
    """Count the words of a text."""
    return {"words": len(text.split())}


@module.op
def echo(value: Any = None) -> Any:
    return value


@module.op
def rich(place: Place, at: datetime | None = None, tags: tuple[str, ...] = ("none",), *, deep: bool = False) -> Place:
    """Give a place, higher by the number of its tags.

    It has more lines.
    """
    return Place(f"{place.name} {at.year if at else ''}{deep}", place.height + len(tags))


@module.op
def total(tree: Tree) -> int:
    return tree.value + sum(map(total, tree.children))


@module.op
def noisy(context: Context) -> str:
    print("printed ✓")
    sys.stdout.write("written\n")
    os.write(1, b"from C\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    assert sys.stdin.read() == ""
    return "quiet"


@module.op
def fail(how: str) -> Any:  # noqa: C901, PLR0912 - one for each way
    match how:
        case "own":
            raise ModuleError("out_of_ink", "buy some\nsoon", {"colour": "cyan"})
        case "kernel":
            raise ModuleError("unreachable", "the other one")
        case "code":
            raise ModuleError("", "no code")
        case "details":
            raise ModuleError("own", "with details that are no JSON", {"what": object()})
        case "long":
            raise ModuleError("own", "x" * 10_000)
        case "exit":
            sys.exit(3)
        case "unprintable":
            raise Unprintable
        case "nan":
            return {"n": [1.0, math.inf]}
        case "null":
            return {"n": [1.0, None, {"m": 1.5}]}
        case "object":
            return object()
        case "surrogate":
            return "\ud800"
        case "deep":
            value: list = []
            for _ in range(100_000):
                value = [value]
            return value
        case "large":
            return "x" * (33 << 20)
    raise ValueError(f"I do not know\n{how}")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@module.op
def stream(context: Context, to: int, size: int = 0, pause: float = 0) -> int:
    for n in range(1, to + 1):
        context.chunk({"n": n, "pad": "x" * size})
        time.sleep(pause)
    return to


@module.op(name="stream.async")
async def stream_async(context: Context, to: int, size: int = 0, *, drain: bool = True) -> int:
    for n in range(1, to + 1):
        context.chunk({"n": n, "pad": "x" * size})
        if drain:
            await context.drain()
    return to


@module.op
def wait(context: Context, seconds: float) -> str:
    """Wait in a plain function, that looks whether its caller gave up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if context.cancelled:
            print("told")
            context.check()
        time.sleep(0.01)
    context.check()
    return "waited"


@module.op
def hang(seconds: float) -> None:
    """Wait in a plain function that listens to nobody."""
    time.sleep(seconds)


@module.op
async def nap(context: Context, seconds: float = 0.0, *, stubborn: float = 0.0) -> dict[str, Any]:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        print("cancelled in a nap")
        time.sleep(stubborn)
        try:
            context.chunk("late")
        except Cancelled:
            print("no chunk after the end")
        try:
            await context.mounts()
        except Cancelled:
            print("no call either")
        raise
    left = context.seconds_left
    told = {"session": context.session_id, "request": context.request_id, "span": context.span_id}
    return {**told, "left": left, "cancelled": context.cancelled}


@module.op
def tell(context: Context, events: int) -> None:
    for n in range(events):
        context.event("kit:told", {"n": n})


@module.op
async def relay(context: Context, path: str, op: str, args: dict[str, Any], *, stream: bool = False) -> Any:
    return await context.invoke(path, op, args, timeout=20, stream=stream)


@module.op
def plain_call(context: Context) -> None:
    context.invoke("/mnt/tools/x", "y").send(None)  # what an `await` does


async def steps(context: Context, paths: list[str]) -> list[Any]:
    """Call modules together, and then one after the other; a failed one gives its code."""
    context.event("kit:step", {"at": "start"})
    context.chunk("start")
    together = await asyncio.gather(*(call(context, path, "a b") for path in paths))
    context.chunk("together")
    context.event("kit:step", {"at": "together"})
    return [*together, *[await call(context, path, "a b c") for path in paths]]


async def call(context: Context, path: str, text: str) -> Any:
    try:
        return (await context.invoke(path, "count", {"text": text}))["words"]
    except ModuleError as error:
        return error.code


module.op(name="steps")(steps)
module.op(name="steps.stateless", stateless=True)(steps)


@module.op(stateless=True)
async def diverge(context: Context) -> Any:
    return await context.call("mounts", {"path": os.urandom(4).hex()}), await context.call("emit")


@module.op(stateless=True)
async def heap(context: Context, size: int) -> list[Any]:
    return [await context.call("mounts", {"n": n}) for n in range(size)]


@module.op
async def together(context: Context, count: int, size: int) -> int:
    """Make calls, all at once."""
    return len(await asyncio.gather(*(context.call("mounts", {"n": "x" * size}) for _ in range(count))))


@module.op
async def beside(context: Context) -> str:
    """Work on while the system calls are made."""
    asking = asyncio.create_task(context.mounts())
    given_up, given_up_later = (asyncio.create_task(context.mounts()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    while not context._run.channel.answered:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    given_up_later.cancel()
    context.chunk("between")
    await context.drain()
    context.event("kit:between")
    later = asyncio.create_task(context.emit("kit:later"))
    await asyncio.gather(asking, later)
    return "done"


@module.op
async def leave(context: Context, chunk: int = 0) -> str:
    """Answer without waiting for a system call that the kernel makes."""
    asking = asyncio.ensure_future(context.mounts())
    await asyncio.sleep(0)
    while not context._run.channel.answered:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    context.chunk("x" * chunk)
    _ = asyncio.ensure_future(context.mounts()), asking
    await asyncio.sleep(0)
    return "left"


@module.op
async def regret(context: Context) -> str:
    """Give up a system call before it is asked for."""
    asking = asyncio.create_task(context.mounts())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0.01)
    return "none"


@module.op
async def every(context: Context, descriptor: dict[str, Any]) -> dict[str, Any]:
    """Make each system call once."""
    path = await context.mount("/mnt/tools", descriptor)
    names = [each["name"] for each in await context.mounts("/mnt/tools")]
    inputs = list((await context.describe(path))["inputs"])
    await context.register_hook("kit:*", path, 5)
    await context.set_fragment("key", {"a": [1]})
    await context.emit("kit:emitted", {"n": 1})
    session = await context.create_session("sub", {})
    fork = await context.fork_session(session)
    await context.end_session(fork, "done")
    await context.end_session(session)
    removed = await context.unmount("/mnt/tools", names[0])
    await context.mount("/mnt/tools", descriptor)
    removed += await context.unmount("/mnt/tools")
    return {"path": path, "names": names, "inputs": inputs, "removed": removed, "got": await context.get_fragments()}


@module.op
async def sub_session(context: Context, descriptor: dict[str, Any]) -> dict[str, Any]:
    """Make each system call once in a session of its own."""
    made = await context.create_session("sub")
    path = await context.mount("/mnt/tools", descriptor, session_id=made)
    await context.register_hook("kit:*", path, session_id=made)
    await context.set_fragment("key", 1, session_id=made)
    await context.emit("kit:emitted", session_id=made)
    return {
        "made": made,
        "result": await context.invoke(path, "echo", {"n": 1}, timeout=5, session_id=made),
        "described": (await context.describe(path, session_id=made))["name"],
        "mounts": [[each["path"] for each in await context.mounts(session_id=within)] for within in (made, None)],
        "fragments": [await context.get_fragments(session_id=within) for within in (made, None)],
        "removed": await context.unmount(path, session_id=made),
    }


app = module.asgi()


async def serve() -> None:
    server = await module.grpc()
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["asgi"]:
        import uvicorn

        uvicorn.run(app, fd=int(sys.argv[2]), log_level="warning")
    elif sys.argv[1:2] == ["grpc"]:
        asyncio.run(serve())
    else:
        module.run()
