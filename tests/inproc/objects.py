"""Objects that tests mount by their import path."""

import asyncio
import os
import threading
import time
from typing import Any

from amplifier_core import BadRequest, KernelError, Unreachable, UnsupportedOp
from amplifier_module import Module

CAPABILITIES = ["sys:context.get", "sys:context.set_fragment:key", "sys:mount", "sys:invoke:/mnt/tools/*"]
OPS = ["echo", "fail", "nap", "tell", "chunks", "ids", "steps", "mounting"]


class Stop(BaseException):
    """What no `except Exception` catches."""


class Plain:
    """A plain object, with `async` functions."""

    kind = "tool"

    def __init__(self, name="plain"):
        self.name = name
        self.capabilities: list = []
        self.seen: list = []
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()

    def describe(self):
        schemas = {op: {"type": "object"} for op in OPS}
        told = {"name": self.name, "kind": self.kind, "version": None, "capabilities": self.capabilities}
        return {**told, "inputs": schemas, "outputs": schemas}

    async def invoke(self, op, args, context):  # noqa: PLR0911 - one for each op
        self.seen.append(args)
        match op:
            case "echo":
                return args.get("value")
            case "fail":
                return fail(args["how"])
            case "nap":
                return await self.nap(args, context)
            case "tell":
                context.event("plain:told", {"n": 1})
                context.event("plain:told")
                return fail(args["how"]) if "how" in args else None
            case "chunks":
                for n in range(args["to"]):
                    context.chunk({"n": n, "pad": "x" * args.get("size", 0)})
                    await context.drain()
                return args["to"]
            case "ids":
                return await self.ids(context)
            case "steps":
                return steps(context)
            case "mounting":
                return self.mounting(args, context)
        raise UnsupportedOp(f"{self.name} does not know {op}")

    async def nap(self, args, context):
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.seen.append(("cancelled", context.cancelled))
            if not args.get("stubborn"):
                raise
            for _ in range(args.get("tell", 0)):
                context.event("plain:late")
            await self.let_go.wait()
        return "rested"

    async def ids(self, context):
        ids = [context.session_id, context.request_id, context.span_id]
        return {"ids": ids, "left": context.seconds_left, "cancelled": context.cancelled}

    def mounting(self, args, context):
        if context.resume is not None:
            return context.resume["results"]
        return context.pending([{"name": "mount", "args": {"path": "/mnt/tools", "descriptor": args["descriptor"]}}])


def steps(context):
    """Read the context, then write it: two turns."""
    if context.resume is None:
        return context.pending([{"name": "context.get"}], {"step": 1})
    if context.resume["state"] == {"step": 1}:
        context.event("plain:stepped", {"results": context.resume["results"]})
        return context.pending([{"name": "context.set_fragment", "args": {"key": "key", "value": [1]}}], "last")
    return context.resume


def fail(how):  # noqa: C901, PLR0912 - one for each way
    match how:
        case "input":
            raise BadRequest("args.how: expected another one", details={"path": "args.how"})
        case "own":
            raise KernelError("buy some", code="out_of_ink", details={"colour": "cyan"})
        case "details":
            raise BadRequest("its details are no JSON", details={"what": object()})
        case "kernel":
            raise Unreachable("the other one is gone")
        case "foreign":
            raise ValueError("no \ud800 text\nat all")
        case "exit":
            os.sys.exit(3)  # type: ignore[attr-defined]
        case "base":
            raise Stop("now")
        case "cancel":
            raise asyncio.CancelledError
        case "set":
            return {"rows": [1, {"a": {1}}]}
        case "nan":
            return float("nan")
        case "deep":
            value: list = []
            for _ in range(300):
                value = [value]
            return value
        case "wide":
            return [[] for _ in range(500_000)]
        case "large":
            return "x" * (1 << 20)
    return "nothing"


class Blocking:
    """A plain object, with plain functions."""

    def __init__(self, name="blocking"):
        self.name = name
        self.release = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.seen: list = []

    def describe(self):
        schemas = {op: {"type": "object"} for op in OPS}
        return {"name": self.name, "kind": "tool", "capabilities": [], "inputs": schemas, "outputs": schemas}

    def health(self):
        return {"status": "ok"}

    def invoke(self, op, args, context):
        match op:
            case "echo":
                return args.get("value")
            case "fail":
                return fail(args["how"])
            case "nap":
                self.begun.release()
                self.release.wait()
                self.ended.release()
                return "rested"
            case "chunks":
                return self.chunks(args, context)
            case "thread":
                return threading.current_thread() is threading.main_thread()
            case "watch":
                self.begun.release()
                while not context.cancelled:
                    time.sleep(0.001)
                self.note(context.check)
                self.note(lambda: context.chunk("late"))
                self.ended.release()
        return None

    def chunks(self, args, context):
        try:
            for n in range(args["to"]):
                context.chunk({"n": n, "pad": "x" * args.get("size", 0)})
                self.seen.append(n)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.ended.release()
        return args["to"]

    def note(self, call):
        try:
            call()
        except asyncio.CancelledError:
            self.seen.append("cancelled")


class Answers:
    """An object that answers messages itself, and is what answers."""

    def __init__(self, name="answers"):
        self.name = name
        self.closed = 0
        self.late: Any = b""  # the reply to what was cancelled
        self.begun = asyncio.Event()

    def describe(self):
        return {"name": self.name, "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}

    def inproc(self):
        return self

    async def answer(self, method, params, send):  # noqa: C901, PLR0911, PLR0912 - one for each way
        if method == "health":
            return b'{"ok":true,"result":{"status":"ok"}}'
        if method == "describe":
            return b'{"ok":true,"result":{"name":"%b","kind":"tool","capabilities":[],"inputs":{},"outputs":{}}}' % (
                self.name.encode()
            )
        if b'"op":"echo"' in params:
            return b'{"ok":true,"result":"here"}'
        if b'"op":"chunk"' in params:
            await send(b'{"chunk":1}')
            return b'{"ok":true,"result":1}'
        if b'"op":"nochunk"' in params:
            await send(b'{"ok":true,"result":1}')
        if b'"op":"nojson"' in params:
            await send(b"{")
        if b'"op":"largechunk"' in params:
            await send(b'{"chunk":"%b"}' % (b"x" * 5000))
        if b'"op":"large"' in params:
            return b'{"ok":true,"result":"%b"}' % (b"x" * 5000)
        if b'"op":"nap"' in params:
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.late == b"":
                    raise
                return self.late
        if b'"op":"exit"' in params:
            os.sys.exit(3)  # type: ignore[attr-defined]
        if b'"op":"base"' in params:
            raise Stop("now")
        if b'"op":"text"' in params:
            return "{}"
        if b'"op":"broken"' in params:
            return b"{"
        raise ValueError("boom")

    async def close(self):
        self.closed += 1


plain = Plain()
kit = Module("kit")


@kit.op
def count(text: str) -> dict[str, int]:
    """Count the words of a text."""
    return {"words": len(text.split())}
