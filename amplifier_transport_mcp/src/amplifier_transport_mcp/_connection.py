"""The connection to one MCP server: the kernel's three methods in the words of MCP, and another client after an end.

Owns what a request means and which client carries it. The SDK's client is the session's, bytes are the streams'.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError, Timeout, Unreachable
from amplifier_core.hookspecs import Connection, Message, add_clues, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Launch, Notify, Usage
    from amplifier_transport_http import HttpFields
    from amplifier_transport_stdio import Launcher

    from ._fields import Inputs
    from ._invocation import Invocation
    from ._session import ClientSession, StdioClientSession
    from ._tools import Tools

CANCEL_GRACE = 1.0
"""Seconds that a server has to answer a ping after a call was cancelled, before it is killed."""

_GRACE = "the server, which had not answered a ping since a request was cancelled; this one was not sent"
_HEALTH_SECONDS = 10.0
_TRACE = re.compile("[0-9a-f]{32}-[0-9a-f]{16}")
_TOOL = "x-mcp:tool"


class _McpConnection(Connection):
    """One server, and the client of it: another client after an end."""

    def __init__(self, descriptor: ModuleDescriptor, inputs: Inputs, notify: Notify) -> None:
        words = descriptor.capabilities
        self.unenforced: tuple[str, ...] = tuple(each for each in words if not each.startswith(("sys:", "x-")))
        self._descriptor = descriptor
        self._inputs = inputs
        self._notify = notify
        self._granted: Sequence[str] = ()
        self._tools: Tools | None = None  # that were listed last
        self._described: Mapping[str, Any] | None = None  # what the kernel was told
        self._session: ClientSession | None = None
        self._suspended: dict[str, Invocation] = {}  # the kernel carries out what their servers asked for
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False
        self._is_old = False  # the server is of a revision before 2026: it is greeted at once

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Start the server if it is a process, and agree on a revision."""
        self._check_roots(granted)
        self._granted = granted
        self._grant(granted, confinement)
        # In a thread: half a second, during which the loop goes on.
        self._sdk: Any = await asyncio.to_thread(importlib.import_module, f"{__package__}._sdk")
        await self._ready_session()

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Carry one request."""
        try:
            return await self._answer(method, params, chunks)
        except (BrokenPipeError, self._sdk.SessionEnded):  # the server had gone unnoticed, and carried out nothing
            return await self._answer(method, params, chunks)

    async def close(self) -> None:
        """End the client, and with it a server that is a process."""
        self._closed = True
        for invocation in list(self._suspended.values()):
            invocation.cancel()
        if self._session is not None:
            self._session.end(Unreachable("the module was unmounted"))
            await self._session.close()
        await asyncio.gather(*self._background, return_exceptions=True)

    # What the two kinds of connections do differently.

    def _grant(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Note what processes may do, and what confines them, if the server is a process."""

    @abstractmethod
    def _begin(self) -> ClientSession:
        """Make a client. Raises ``Unreachable`` if that is impossible."""

    async def _ready_session(self) -> ClientSession:
        """Give a client after its handshake.

        A server of an older revision may end at the first question, which it does not know: then another one is
        greeted as such servers are. So are all that follow it.
        """
        session = await self._usable_session()
        try:
            await session.client()
        except Unreachable:
            self._is_old = session.rejected and not session.old
            if not self._is_old:
                raise
            session = await self._usable_session()
            await session.client()
        self._is_old = not session.modern
        return session

    async def _usable_session(self) -> ClientSession:
        """Give a client that requests may be sent to."""
        if self._closed:
            raise Unreachable("the module was unmounted")
        if self._session is None or not self._session.usable:
            old, self._session = self._session, self._begin()
            self._session.correlator.on_change = self._report_change
            if old is not None:
                self._in_background(self._retire(old))
        return self._session

    def _after_cancel(self, session: ClientSession) -> None:
        """Do what is necessary after a request was cancelled, beside the SDK's notification."""

    async def _retire(self, session: ClientSession) -> None:
        await session.correlator.idle.wait()
        await session.close()

    # The three methods.

    async def _answer(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        if chunks is not None:
            chunks.hold()
        session = await self._ready_session()
        try:
            if method == "health":
                return await self._ping(session)
            tools = await session.list_tools(self._granted_tools)
            if method == "describe":
                self._tools, self._described = tools, tools.describe(self._descriptor, session.server())
                return Message(ok=True, result=self._described, size=tools.size)
            self._compare(session, tools)
            if chunks is not None:
                chunks.sent()
            return await self._invoke(session, tools, decode(params), chunks)
        except asyncio.CancelledError:
            self._after_cancel(session)
            raise

    def _compare(self, session: ClientSession, tools: Tools) -> None:
        """Report tools that are listed anew, and are others than those that were described: a server may not say so."""
        if tools is not self._tools:
            self._tools = tools
            if self._described not in (None, tools.describe(self._descriptor, session.server())):
                self._report_change()

    def _report_change(self) -> None:
        """Tell the kernel that ``describe`` may give something else now."""
        self._notify("module:changed", {})

    async def _ping(self, session: ClientSession) -> Message:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await session.ping()
        except TimeoutError:
            raise Timeout(f"the server did not answer a ping within {_HEALTH_SECONDS:g} s") from None
        return Message(ok=True, result={"status": "ok"})

    async def _invoke(
        self, session: ClientSession, tools: Tools, request: Mapping[str, Any], chunks: Chunks | None
    ) -> Message:
        op = request["op"]
        args = tools.fit(op, request["args"])
        resume = request.get("resume")
        if resume is not None and "call" in resume["state"]:
            suspended = self._suspended.pop(resume["state"]["call"], None)
            if suspended is None:
                raise Unreachable("the server went away while it waited for an answer")
            return await suspended.resume(chunks, resume)
        invocation: Invocation = self._sdk.Invocation(session, tools, self._inputs, op, args, _meta(request))
        if self._inputs.handlers and not session.modern:
            return await invocation.begin(chunks, request.get("deadline_ms"), self._suspended)
        return await invocation.run(chunks, resume)

    @property
    def _granted_tools(self) -> Sequence[str] | None:
        """The tools that were granted; ``None``: the descriptor names none, and policy decides at each call."""
        if not any(map(is_tool, self._descriptor.capabilities)):
            return None
        return [word for word in self._granted if is_tool(word)]

    def _check_roots(self, granted: Sequence[str]) -> None:
        """Refuse roots that the module was not granted: the server would be told of paths that it must not touch."""
        paths = [word.split(":", 2)[2] for word in granted if word.startswith("fs:")]
        for root in self._inputs.roots or ():
            if not any(root == path or root.startswith(f"{path.rstrip('/')}/") for path in paths):
                raise Forbidden(
                    f"transport.roots: {root} was not granted", details={"capabilities": [f"fs:read:{root}"]}
                )

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class McpStdioConnection(_McpConnection):
    """A server as a child process. It is started again by the first request after its end."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, inputs: Inputs, notify: Notify, launcher: Launcher) -> None:
        super().__init__(descriptor, inputs, notify)
        self._launcher = launcher
        self._settling = 0
        self._settled = asyncio.Event()

    def launch(self) -> Launch:
        """Give what is started if all capabilities of the descriptor are granted."""
        return self._launcher.launch()

    def clues(self) -> dict[str, Any]:
        """Give what may explain a missing answer."""
        return self._launcher.clues()

    def kill(self, error: KernelError) -> None:
        """Kill the process with all that it started; requests in flight fail with the error."""
        self._launcher.kill(error)

    def _grant(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        self._launcher.grant(granted, confinement)

    def _begin(self) -> ClientSession:
        limit = self._descriptor.message_bytes
        session: ClientSession = self._sdk.StdioClientSession(self._launcher, limit, self._inputs, old=self._is_old)
        return session

    def usage(self, *, exact: bool) -> Usage | None:
        """Measure the process and its descendants."""
        return self._launcher.usage(exact=exact, settling=bool(self._settling))

    async def _answer(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        """Carry one request. If it fails, say what the server has said since it was made."""
        heard = self._launcher.heard()
        try:
            return await super()._answer(method, params, chunks)
        except asyncio.CancelledError as error:
            add_clues(error, **self._launcher.clues(heard))
            raise
        except KernelError as error:
            if "pid" in error.details or "line" in error.details:  # the process has ended, or broke a reply
                error.details = self._launcher.explain(error.details, heard)
            raise

    async def _usable_session(self) -> ClientSession:
        while self._settling and not self._closed and self._session is not None and self._session.usable:
            self._settled.clear()
            try:
                await self._settled.wait()
            except asyncio.CancelledError as error:
                add_clues(error, phase="grace", waited_for=_GRACE)
                raise
        return await super()._usable_session()

    def _after_cancel(self, session: Any) -> None:
        """Hold requests back until the server has shown that it is not stuck: else they would end with it."""
        self._settling += 1
        self._in_background(self._settle(session))

    async def _settle(self, session: StdioClientSession) -> None:
        try:
            async with asyncio.timeout(CANCEL_GRACE):
                await session.ping()
        except TimeoutError:
            why = f"the module was killed: it did not answer a ping within {CANCEL_GRACE:g} s after a cancel"
            session.child.kill(Unreachable(why))
        except (KernelError, OSError):  # it has gone already
            pass
        finally:
            self._settling -= 1
            self._settled.set()


class McpHttpConnection(_McpConnection):
    """A server over HTTP. Between requests there are connections, perhaps a session, and nothing else."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, inputs: Inputs, notify: Notify, fields: HttpFields) -> None:
        super().__init__(descriptor, inputs, notify)
        self.endpoints: tuple[str, ...] = fields.endpoints
        self._fields = fields

    def _begin(self) -> ClientSession:
        limit = self._descriptor.message_bytes
        session: ClientSession = self._sdk.HttpClientSession(self._fields, limit, self._inputs, old=self._is_old)
        return session


def is_tool(word: str) -> bool:
    """Tell whether a capability allows a tool, or all of them: policy grants it, and the transport enforces it."""
    return word == _TOOL or word.startswith(f"{_TOOL}:")


def _meta(request: Mapping[str, Any]) -> dict[str, str]:
    """Give what the server is told about a request: its session and id, and its trace (W3C trace context)."""
    meta = {name: request[name] for name in ("session_id", "request_id") if isinstance(request.get(name), str)}
    trace = f"{meta.get('request_id')}-{request.get('span_id')}"
    if _TRACE.fullmatch(trace):
        meta["traceparent"] = f"00-{trace}-01"
    return meta
