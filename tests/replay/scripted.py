"""Modules in this process that do what their arguments say: for many runs, and for long ones."""

import asyncio

from amplifier_core import KernelError
from amplifier_core.hookspecs import Connection, Message, decode, decode_message, encode

OPS = ("echo", "fail", "wait", "call", "turns", "tell", "chunks")


class Scripted(Connection):
    """A module that is opened by ``Kernel(open_transport=…)``."""

    unenforced = ()
    local = False

    def __init__(self, descriptor):
        self._descriptor = descriptor

    async def start(self, granted, confinement):
        await asyncio.sleep(0)

    async def request(self, method, params, chunks=None):
        if method != "invoke":
            told = {"name": self._descriptor.name, "kind": self._descriptor.kind, "inputs": {}, "outputs": {}}
            return Message(ok=True, result={"status": "ok", **told, "capabilities": list(self._descriptor.spellings)})
        asked = decode(params)
        return await getattr(self, f"_{asked['op']}")(asked.get("args"), asked.get("resume"), chunks)

    async def _echo(self, args, resume, chunks):
        return Message(ok=True, result=args)

    async def _on_event(self, args, resume, chunks):
        await asyncio.sleep(0)
        return Message(ok=True, result={"decision": "abstain"})

    async def _fail(self, args, resume, chunks):
        await asyncio.sleep(0)
        if args["raised"]:
            raise KernelError(args["message"], code=args["code"])
        body = {"code": args["code"], "message": args["message"]}
        return decode_message(encode({"ok": False, "error": body, "events": args["events"]}, "reply"))

    async def _wait(self, args, resume, chunks):
        for _ in range(args["turns"]):
            await asyncio.sleep(0)
        return Message(ok=True, result=args)

    async def _call(self, args, resume, chunks):
        await asyncio.sleep(0)
        if resume is not None:
            return Message(ok=True, result=resume["results"])
        return decode_message(encode({"pending": {"syscalls": args["syscalls"], "state": None}}, "reply"))

    async def _turns(self, args, resume, chunks):
        done = 0 if resume is None else resume["state"] + 1
        if done == args["count"]:
            return Message(ok=True, result=done)
        return decode_message(encode({"pending": {"syscalls": args["syscalls"], "state": done}}, "reply"))

    async def _tell(self, args, resume, chunks):
        return decode_message(encode({"ok": True, "result": None, "events": args["events"]}, "reply"))

    async def _chunks(self, args, resume, chunks):
        for n in range(args["to"]):
            if chunks is not None:
                chunks.put({"n": n}, 10)
            await asyncio.sleep(0)
        return Message(ok=True, result=args)

    async def close(self):
        await asyncio.sleep(0)


def open_transport(descriptor, notify, host):
    return Scripted(descriptor)


def scripted(name="m", kind="tool", capabilities=(), **limits):
    """Describe a module of these."""
    told = {"name": name, "kind": kind, "capabilities": [*capabilities], "limits": limits}
    return {**told, "transport": {"type": "scripted"}}
