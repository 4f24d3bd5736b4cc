"""The connection to one MCP server: the kernel's three questions, in the words of MCP, and the next start.

Owns what a request means and which client carries it. The client is a life's, bytes are the wires'.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from amplifier_core import Forbidden, KernelError, Timeout, Unreachable
from amplifier_core.hookspecs import Message, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Isolation, Launch, Usage
    from amplifier_transport_stdio import Launcher

    from ._fields import HttpFields, Inputs
    from ._life import Life, LocalLife, RemoteLife
    from ._talk import Talk
    from ._tools import Tools

CANCEL_GRACE = 1.0
"""Seconds that a server has to answer a ping after a call was cancelled, before it is killed."""

_HEALTH_SECONDS = 10.0
_TRACE = re.compile(r"req_([0-9a-f]{16})\Z")
_VERSION = "0.1.0"
_TOOL = "x-mcp:tool"


L = TypeVar("L", bound="Life")


class _Server(ABC, Generic[L]):
    """One server, and the client that speaks to it: another one after an end."""

    def __init__(self, descriptor: ModuleDescriptor, inputs: Inputs) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not is_tool(word) and word[:4] != "sys:")
        self._descriptor = descriptor
        self._inputs = inputs
        self._granted: Sequence[str] = ()
        self._life: L | None = None
        self._talks: dict[str, Talk] = {}
        self._asides: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:  # noqa: ARG002
        """Agree with the server on a revision."""
        self._check_roots(granted)
        self._granted = granted
        # In a thread: half a second, during which the loop has other things to do.
        self._sdk: Any = await asyncio.to_thread(importlib.import_module, f"{__package__}._sdk")
        await (await self._usable()).client()

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Carry one request."""
        try:
            return await self._answer(method, params, chunks)
        except (BrokenPipeError, self._sdk.SessionEnded):  # nothing of it was carried out: it had gone unnoticed
            return await self._answer(method, params, chunks)

    async def close(self) -> None:
        """End the client, and with it the server if it is here."""
        self._closed = True
        for talk in list(self._talks.values()):
            talk.drop()
        if self._life is not None:
            self._life.end(Unreachable("the module was unmounted"))
            await self._life.close()
        await asyncio.gather(*self._asides, return_exceptions=True)

    # What the two kinds of servers do in their own way.

    async def _usable(self) -> L:
        """Give a life that requests may be sent to."""
        if self._closed:
            raise Unreachable("the module was unmounted")
        if self._life is None or not self._life.usable:
            old, self._life = self._life, self._begin()
            if old is not None:
                self._aside(self._retire(old))
        return self._life

    @abstractmethod
    def _begin(self) -> L:
        """Begin a life. Raises ``Unreachable`` if there can be none."""

    async def _retire(self, life: L) -> None:
        await life.traffic.quiet.wait()
        await life.close()

    def _after_cancel(self, life: L) -> None:
        """Do what is to be done after a call was cancelled."""

    # The three questions.

    async def _answer(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        life = await self._usable()
        try:
            if method == "health":
                return await self._ping(life)
            tools = await life.list_tools(self._granted_tools)
            if method == "describe":
                return Message(ok=True, result=tools.describe(self._descriptor, life.server()))
            return await self._invoke(life, tools, decode(params), chunks)
        except asyncio.CancelledError:
            self._after_cancel(life)
            raise

    async def _ping(self, life: L) -> Message:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await life.ping()
        except TimeoutError:
            raise Timeout(f"the server did not answer a ping within {_HEALTH_SECONDS:g} s") from None
        return Message(ok=True, result={"status": "ok"})

    async def _invoke(self, life: L, tools: Tools, request: Mapping[str, Any], chunks: Chunks | None) -> Message:
        op, args = request["op"], request["args"]
        tools.check(op, args)
        resume = request.get("resume")
        if resume is not None and "talk" in resume["state"]:
            return await self._talk(resume["state"]["talk"]).go_on(chunks, resume, self._talks)
        talk: Talk = self._sdk.Talk(life, tools, self._inputs, op, args, _meta(request))
        if self._inputs.handlers and not life.modern:
            return await talk.begin(chunks, request.get("deadline_ms"), self._talks)
        return await talk.run(chunks, resume)

    def _talk(self, token: str) -> Talk:
        talk = self._talks.pop(token, None)
        if talk is None:
            raise Unreachable("the server went away while it waited for an answer")
        return talk

    @property
    def _granted_tools(self) -> Sequence[str] | None:
        """What was granted of the tools; ``None``: the descriptor names none, and leaves it at the gate."""
        if not any(map(is_tool, self._descriptor.capabilities)):
            return None
        return [word for word in self._granted if is_tool(word)]

    def _check_roots(self, granted: Sequence[str]) -> None:
        """Refuse roots that the module was not granted: the server would be told of what it must not touch."""
        paths = [word.split(":", 2)[2] for word in granted if word.startswith("fs:")]
        for root in self._inputs.roots or ():
            if not any(root == path or root.startswith(f"{path.rstrip('/')}/") for path in paths):
                raise Forbidden(
                    f"transport.roots: {root} was not granted", details={"capabilities": [f"fs:read:{root}"]}
                )

    def _aside(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)


class LocalServer(_Server["LocalLife"]):
    """A server as a child process. It is started again by the first request after its end."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, inputs: Inputs, launcher: Launcher) -> None:
        super().__init__(descriptor, inputs)
        self.usage = self._usage if launcher.can_measure else None
        self._launcher = launcher
        self._settling = 0
        self._settled = asyncio.Event()

    def launch(self) -> Launch:
        """Give what is started if all capabilities of the descriptor are granted."""
        return self._launcher.launch()

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:
        """Start the server, and agree on a revision."""
        self._launcher.grant(granted, isolation)
        await super().start(granted, isolation)

    def clues(self) -> dict[str, Any]:
        """Give what may explain a missing answer."""
        return self._launcher.clues()

    def kill(self, error: KernelError) -> None:
        """Kill the process with all that it started; requests in flight fail with the error."""
        self._launcher.kill(error)

    def _begin(self) -> LocalLife:
        life: LocalLife = self._sdk.LocalLife(self._launcher, self._inputs, _VERSION)
        return life

    def _usage(self, *, exact: bool) -> Usage | None:
        return self._launcher.usage(exact=exact, settling=bool(self._settling))

    async def _usable(self) -> LocalLife:
        while self._settling and not self._closed and self._life is not None and self._life.usable:
            self._settled.clear()
            await self._settled.wait()
        return await super()._usable()

    def _after_cancel(self, life: LocalLife) -> None:
        """Hold requests back until the server has shown that it is not stuck: else they would end with it."""
        self._settling += 1
        self._aside(self._settle(life))

    async def _settle(self, life: LocalLife) -> None:
        try:
            async with asyncio.timeout(CANCEL_GRACE):
                await life.ping()
        except TimeoutError:
            why = f"the module was killed: it did not answer a ping within {CANCEL_GRACE:g} s after a cancel"
            life.kill(Unreachable(why))
        except (KernelError, OSError):  # it has gone already
            pass
        finally:
            self._settling -= 1
            self._settled.set()


class RemoteServer(_Server["RemoteLife"]):
    """A server elsewhere. Between requests there are connections, a session perhaps, and nothing else."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: HttpFields, inputs: Inputs) -> None:
        super().__init__(descriptor, inputs)
        self._fields = fields

    def _begin(self) -> RemoteLife:
        life: RemoteLife = self._sdk.RemoteLife(self._fields, self._descriptor.message_bytes, self._inputs, _VERSION)
        return life


def is_tool(word: str) -> bool:
    """Tell whether a capability is to call a tool, or all of them: policy decides, and the transport keeps to it."""
    return word == _TOOL or word.startswith(f"{_TOOL}:")


def _meta(request: Mapping[str, Any]) -> dict[str, str]:
    """Give what of the request the server may know: whose it is, and its place in the trace (W3C trace context)."""
    meta = {name: request[name] for name in ("session_id", "request_id") if isinstance(request.get(name), str)}
    trace = _TRACE.match(meta.get("request_id", ""))
    if trace and re.fullmatch("[0-9a-f]{16}", request.get("span_id") or ""):
        meta["traceparent"] = f"00-{trace[1]:0>32}-{request['span_id']}-01"
    return meta
