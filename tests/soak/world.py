"""The actions of a soak: sessions start, fork and end; modules of both transports make random faults."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import children
from tests.http.raw import DESCRIPTION, Server, as_module, describe_remote, respond
from tests.soak.ledger import ours

from amplifier_core import KernelError, ModuleDescriptor, Plan

MODULES = Path(__file__).parents[1] / "modules"
TOOLS, AGENTS, HOOKS = "/mnt/tools", "/mnt/agents", "/mnt/hooks"
NDJSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"
SESSIONS = 12
"""Open at once, at most."""
MOUNTS = 3
"""Of one session, at most. Each may be a process."""


def stdio(file, name, *argv, kind="tool", capabilities=(), **fields):
    """Describe one of tests/modules."""
    options = ["--name", name, "--capabilities", json.dumps(list(capabilities))] if file != "hog.py" else []
    options += ["--kind", kind] if file not in ("hog.py", "hook.py") else []
    command = [sys.executable, "-S", "-E", str(MODULES / file), *argv, *options]
    transport = {"type": "stdio", "command": command, "env": dict([ours()])}
    described = {"name": name, "kind": kind, "capabilities": list(capabilities), "transport": transport}
    return ModuleDescriptor.from_mapping({**described, **fields})


class Faulty:
    """HTTP services that make the fault that the op names. Now and then one is stopped, and another one replaces it."""

    def __init__(self):
        self.servers = []
        self._restarting = asyncio.Lock()

    async def start(self, count):
        for _ in range(count):
            self.servers.append(Server(as_module(self._answer, DESCRIPTION)))
            await self.servers[-1].start()

    async def restart(self, n):
        async with self._restarting:
            await self.servers[n].stop()
            await self.servers[n].start()

    async def stop(self):
        for server in self.servers:
            await server.stop()

    async def _answer(self, request):
        op, args = request.params["op"], request.params["args"]
        if op == "echo":
            await request.send(respond({"ok": True, "result": args}))
        elif op == "reset":
            await request.send(b"HTTP/1.1 200 OK\r\ncontent-le")
            request.reset()
        elif op == "half":
            await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
            request.writer.close()
        elif op == "html":
            await request.send(respond(b"<html>", args["status"]))
        elif op == "deaf":
            await request.gone()
        elif op == "surplus":
            await request.send(respond({"ok": True, "result": 1}) + b"HTTP/1.1 200 OK\r\n\r\n")
        elif op == "stream":
            await request.send(NDJSON)
            for n in range(args["to"]):
                await request.send(b'{"chunk":{"n":%d,"pad":"%s"}}\n' % (n, b"x" * args["size"]))
            await request.send(b'{"ok":true,"result":1}\n')
            request.writer.close()
        for server in self.servers:
            server.requests.clear()


class Doubt:
    """A policy hook that allows, denies now and then, is sometimes late or talks nonsense; and an observer like it."""

    def __init__(self, dice):
        self.dice = dice

    async def decide(self, event):
        chance = self.dice.random()
        if chance < 0.03:
            return {"decision": "deny", "reason": "no luck"}
        if chance < 0.05:
            await asyncio.sleep(0.3)
        if chance < 0.07:
            return "nonsense"
        if chance < 0.08:
            raise ValueError("a hook that fails")
        return {"decision": "allow", "scope": "session" if chance < 0.2 else "call"}

    async def see(self, event):
        chance = self.dice.random()
        if chance < 0.02:
            raise ValueError("an observer that fails")
        if chance < 0.05:
            await asyncio.sleep(0.01)


class World:
    """The sessions of one kernel, and what happens to them."""

    def __init__(self, kernel, ledger, dice, faulty):
        self.kernel = kernel
        self.ledger = ledger
        self.dice = dice
        self.faulty = faulty
        self.doubt = Doubt(dice)
        self.sessions = []
        self.calm = {str(pid) for pid in children()}  # the soak kills no process that was there before
        self._names = 0
        self._deeds = (
            *[(12, self.call), (4, self.give_up), (4, self.stream), (3, self.relay), (5, self.mount)],
            *[(2, self.unmount), (2, self.fork), (1, self.create), (1, self.end), (1, self.hook), (1, self.kill)],
            *[(1, self.tell), (1, self.disturb)],
        )

    async def act(self, until):
        """Do one thing after the other."""
        weights = [weight for weight, _ in self._deeds]
        deeds = [deed for _, deed in self._deeds]
        while asyncio.get_running_loop().time() < until:
            (deed,) = self.dice.choices(deeds, weights)
            with suppress(KernelError):
                await deed()
            await asyncio.sleep(self.dice.expovariate(200))

    async def end_all(self):
        """End every session, at once."""
        sessions, self.sessions = self.sessions, []
        await asyncio.gather(*map(self._end, sessions))

    async def _end(self, session):
        with suppress(KernelError):
            await self.kernel.session.end(session.session_id)

    async def _pick(self):
        if not self.sessions:
            await self.create()
        return self.dice.choice(self.sessions)

    async def create(self):
        if len(self.sessions) >= SESSIONS:
            return
        session = await self.kernel.session.create(Plan(goal="soak", inputs={}))
        await session.register_hook("policy:request", self.doubt.decide, priority=self.dice.randrange(9))
        self.sessions.append(session)
        await self.mount(session)

    async def fork(self):
        if len(self.sessions) < SESSIONS:
            parent = await self._pick()
            self.sessions.append(await self.kernel.session.fork(parent.session_id))

    async def end(self):
        if len(self.sessions) > 2:
            session = self.sessions.pop(self.dice.randrange(len(self.sessions)))
            await self._end(session)

    async def mount(self, session=None):
        session = session or await self._pick()
        if len(await session.mounts()) >= MOUNTS:
            return
        self._names += 1
        path, descriptor = self._module(f"m{self._names}")
        await session.mount(path, descriptor, trusted=True, timeout=self.dice.choice([0.01, 10, 10, 10]))

    def _module(self, name):
        limits = {"limits": {"concurrency": self.dice.choice([1, 4])}} if self.dice.random() < 0.3 else {}
        port = self.dice.randrange(len(self.faulty.servers))
        describe = self.dice.choice(
            [
                lambda: (TOOLS, stdio("echo.py", f"echo-{name}", **limits)),
                lambda: (TOOLS, stdio("streamer.py", f"streamer-{name}", **limits)),
                lambda: (TOOLS, describe_remote(self.faulty.servers[port].url, **limits)),
                lambda: (AGENTS, stdio("caller.py", f"caller-{name}", kind="agent", capabilities=["sys:invoke"])),
                lambda: (HOOKS, stdio("hook.py", f"hook-{name}", os.devnull, "allow", kind="hook")),
                lambda: (TOOLS, stdio("echo.py", f"liar-{name}", kind="tool", version="9.9.9")),
                lambda: (TOOLS, stdio("missing.py", f"missing-{name}")),
                lambda: (TOOLS, stdio("hog.py", "hog", limits={"memory_bytes": 64_000_000, "cpu_ms": 200})),
            ]
        )
        return describe()

    async def unmount(self):
        session = await self._pick()
        if mounts := await session.mounts():
            await session.unmount(self.dice.choice(mounts)["path"])

    async def _target(self):
        """Pick a mounted module, and what to ask of it."""
        session = await self._pick()
        for _ in range(3):  # one without a module teaches little
            session = session if await session.mounts() else await self._pick()
        mounts = await session.mounts()
        at = self.dice.choice(mounts) if mounts else {"path": f"{TOOLS}/nothing", "name": "echo"}
        op, args = self.dice.choice(OPERATIONS.get(at["name"].partition("-")[0], [("on_event", {"event": {}})]))
        return session, at["path"], op, args

    async def call(self):
        session, path, op, args = await self._target()
        args = self.ledger.tagged(args)
        seconds = self.dice.choice([0.05, 0.2, 2.0])
        await self.ledger.keep(path, args, session.invoke(path, op, args, timeout=seconds), seconds)

    async def give_up(self):
        task = asyncio.create_task(self.call())
        await asyncio.sleep(self.dice.expovariate(100))
        task.cancel()
        await asyncio.wait((task,))

    async def stream(self):
        session, path, op, args = await self._target()
        args = self.ledger.tagged(args)
        stream = session.stream(path, op, args, timeout=1.0)
        await self.ledger.keep(path, args, self._read(stream, self.dice.choice([0, 3, 1000])), 1.0)

    async def _read(self, stream, chunks):
        """Read some chunks, then the result or nothing more; what is left is cancelled, which its event says."""
        async with stream:
            await asyncio.sleep(0)  # left before it begins, it is no invocation
            for _ in range(chunks):
                try:
                    await anext(stream)
                except StopAsyncIteration:
                    break
            if self.dice.random() < 0.5:
                await stream.aclose()
            await stream.result()

    async def relay(self):
        session, path, op, args = await self._target()
        callers = [mount["path"] for mount in await session.mounts(AGENTS)]
        if callers:
            caller = self.dice.choice(callers)
            args = self.ledger.tagged({"path": path, "op": op, "args": args})
            await self.ledger.keep(caller, args, session.invoke(caller, "relay", args, timeout=1.0), 1.0)

    async def hook(self):
        session = await self._pick()
        hooks = [mount["path"] for mount in await session.mounts(HOOKS)]
        endpoint = self.dice.choice([self.doubt.see, *hooks])
        await session.register_hook(self.dice.choice(["*", "module:*", "artifact:write"]), endpoint)

    async def kill(self):
        """Kill one of the modules' processes: they are our children, so that the number is still its own."""
        pids = sorted(children() - self.calm)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(int(self.dice.choice(pids)), self.dice.choice([signal.SIGKILL, signal.SIGTERM]))

    async def disturb(self):
        """Stop an HTTP service in the middle of what it does; it comes back elsewhere."""
        if self.dice.random() < 0.2:
            await self.faulty.restart(self.dice.randrange(len(self.faulty.servers)))

    async def tell(self):
        session = await self._pick()
        await session.context.set_fragment(f"k{self.dice.randrange(5)}", {"n": self.dice.random()})
        session.emit("artifact:write", {"size": self.dice.choice([1, 10_000]) * "x"})


STREAMS = [
    ("count", {"to": 20}),
    ("count", {"to": 200, "size": 2000}),
    ("endless", {"pause": 0.01}),
    ("endless", {}),
    ("fail", {"to": 3}),
]
OPERATIONS = {
    "echo": [
        *[("echo", {"text": "a b"})] * 4,
        *[
            ("echo", {"text": "x" * 100_000}),
            ("sleep", {"seconds": 0.1}),
            ("deaf", {}),
            ("noise", {}),
            ("exit", {"code": 3}),
        ],
        *[("fail", {"code": "mine", "message": "no"}), ("stderr", {"text": "hint " * 2000}), ("nothing", {})],
    ],
    "streamer": STREAMS,
    "hog": [
        *[("grow", {}), ("burn", {"milliseconds": 10}), ("burn", {"milliseconds": 2000}), ("exit", {})],
        *[("daemon", {"how": "session"}), ("daemon", {"how": "double"})],
    ],
    "raw": [
        *[("echo", {"text": "a b"})] * 4,
        *[
            ("reset", {}),
            ("half", {}),
            ("html", {"status": 200}),
            ("html", {"status": 503}),
            ("deaf", {}),
            ("surplus", {}),
        ],
        *[("stream", {"to": 10, "size": 10}), ("stream", {"to": 300, "size": 3000}), ("echo", {"text": "x" * 100_000})],
    ],
    "caller": [
        ("call", {"syscalls": [{"name": "invoke", "args": {"path": "/mnt/tools/raw", "op": "echo", "args": {}}}] * 3}),
        ("turns", {"count": 5, "syscall": {"name": "context.get"}}),
        ("emit", {"events": [{"event": "artifact:write", "data": {}}]}),
        ("raw", {"reply": {"nonsense": 1}}),
    ],
}
