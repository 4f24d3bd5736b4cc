"""A transport in this process, for tests of what the kernel does between two steps of a module.

Its modules echo their arguments. The operation `call` makes system calls, and `wait` waits for other tasks. Every
method takes some turns of the loop, as a real one does.
"""

SCRIPTED = """
import asyncio

from amplifier_core.hookspecs import Connection, Launch, Message, decode, decode_message, encode, hookimpl


class Scripted(Connection):
    unenforced = ()

    def __init__(self, descriptor, notify):
        told = descriptor.transport
        self.local = told.get("local", False)
        self.endpoints = told.get("endpoints", ())
        words = [word for word in descriptor.capabilities if not word.startswith(("sys:", "x-"))]
        self.confined = told.get("confined", False)
        self.unenforced = tuple(word for word in words if word not in told.get("enforced", ()))
        self._descriptor = descriptor
        self._notify = notify

    def launch(self):
        return Launch(command=("/bin/true",), cwd="/", env={})

    async def start(self, granted, confinement):
        self._notify("module:start", {"granted": list(granted)})
        await asyncio.sleep(0)

    async def request(self, method, params, chunks=None):
        await asyncio.sleep(0)
        if method != "invoke":
            told = {"name": self._descriptor.name, "kind": self._descriptor.kind, "inputs": {}, "outputs": {}}
            told = {"status": "ok", **told, "capabilities": list(self._descriptor.spellings)}
            return Message(ok=True, result=told | self._descriptor.transport.get("describe", {}))
        asked = decode(params)
        if "resume" in asked:
            return Message(ok=True, result=asked["resume"]["results"])
        if asked["op"] == "call":
            return decode_message(encode({"pending": {"syscalls": asked["args"]["syscalls"], "state": None}}, "reply"))
        for _ in range(asked["args"].get("turns", 0)):
            await asyncio.sleep(0)
        return Message(ok=True, result=asked["args"])

    async def close(self):
        await asyncio.sleep(0)


@hookimpl
def open_transport(descriptor, notify):
    return Scripted(descriptor, notify)
"""


def scripted(name="m", capabilities=(), *, kind="tool", limits=None, **transport):
    """Describe a module of that transport."""
    told = {"name": name, "kind": kind, "capabilities": list(capabilities), "limits": limits or {}}
    return {**told, "transport": {"type": "scripted", **transport}}


def call(name, /, **args):
    """Write one system call."""
    return {"name": name, "args": args}
