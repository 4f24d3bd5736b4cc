"""Modules that live in the process of the test, for workers that do as well."""

import asyncio

from amplifier_core import KernelError, UnsupportedOp


class Echo:
    """A module whose operations do what a test needs. ``met`` has what each invocation was asked."""

    def __init__(self, name="m", *, limits=None, capabilities=(), kind="tool"):
        self.name, self.limits, self.capabilities, self.kind = name, limits, list(capabilities), kind
        self.met = []
        self.given_up = asyncio.Event()
        self.go_on = asyncio.Event()

    def describe(self):
        ops = dict.fromkeys(("echo", "wait", "chunks", "fail", "raise", "pend"), True)
        told = {"name": self.name, "kind": self.kind, "version": "1.2.3", "capabilities": self.capabilities}
        return {**told, "inputs": ops, "outputs": ops}

    async def invoke(self, op, args, context):
        self.met.append((op, args))
        if not hasattr(self, f"_{op}"):
            raise UnsupportedOp(f"m does not know {op}")
        return await getattr(self, f"_{op}")(args, context)

    async def _echo(self, args, _):
        return args

    async def _wait(self, args, _):
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return args

    async def _chunks(self, args, context):
        for n in range(args["count"]):
            context.chunk({"n": n, "pad": "x" * args.get("size", 0)})
            await context.drain()
        return args["count"]

    async def _fail(self, args, _):
        raise KernelError("as asked", code=args["code"], details=args.get("details"))

    async def _pend(self, args, context):
        return context.pending([{"name": "context.get"}], args) if context.resume is None else context.resume["state"]
