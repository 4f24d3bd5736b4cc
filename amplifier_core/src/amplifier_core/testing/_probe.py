"""The module that ``check_transport`` talks to, without the bytes: a server of the transport's author frames them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

OPS = ("echo", "large", "chunks", "meet", "fail", "pend", "emit", "broken", "wait", "finish", "cancelled", "die")
_KIB = 1024


class ProbeModule:
    """Answers requests, any number at once. One object is one module: it remembers what was cancelled."""

    def __init__(self, name: str = "probe") -> None:
        self._name = name
        self._given_up = 0
        self._present = 0
        self._gate = asyncio.Event()

    async def answer(
        self, method: str, params: Mapping[str, Any], send: Callable[[str], Awaitable[None]]
    ) -> str | None:
        """Answer one request (section 2) with the text of a JSON object, of which one is broken on purpose.

        ``send`` is awaited with the text of each chunk before. A server of lines puts the ``id`` of the request into
        each text, after its first character. ``None`` asks to end the process, or the connection, without an answer.
        When the request is cancelled, cancel the task that awaits this, which still gives a reply.
        """
        if method == "health":
            return _ok({"status": "ok"})
        if method == "describe":
            schemas: dict[str, Any] = {op: {} for op in OPS}
            told = {"name": self._name, "kind": "tool", "capabilities": [], "inputs": schemas, "outputs": schemas}
            return _ok(told)
        if params["op"] not in OPS:
            return _error("unsupported_op", f"probe does not know {params['op']!r}")
        reply: str | None = await getattr(self, f"_{params['op']}")(params.get("args", {}), send)
        return reply

    async def _echo(self, args: Mapping[str, Any], _: object) -> str:
        return _ok(args)

    async def _large(self, args: Mapping[str, Any], _: object) -> str:
        return _ok("x" * args["size"])

    async def _chunks(self, args: Mapping[str, Any], send: Callable[[str], Awaitable[None]]) -> str:
        for n in range(args["count"]):
            await send(json.dumps({"chunk": {"n": n, "pad": "x" * args["kib"] * _KIB}}))
        return _ok({"count": args["count"]})

    async def _meet(self, args: Mapping[str, Any], _: object) -> str:
        """Answer when so many requests are in flight."""
        gate = self._gate
        self._present += 1
        if self._present >= args["of"]:
            self._present, self._gate = 0, asyncio.Event()
            gate.set()
        await gate.wait()
        return _ok(args)

    async def _fail(self, args: Mapping[str, Any], _: object) -> str:
        return _error(args["code"], "as asked", args["details"])

    async def _pend(self, args: Mapping[str, Any], _: object) -> str:
        return json.dumps({"pending": {"syscalls": [{"name": "context.get", "args": {}}], "state": args["state"]}})

    async def _emit(self, args: Mapping[str, Any], _: object) -> str:
        return json.dumps({"ok": True, "result": {}, "events": [{"event": "probe:said", "data": args}]})

    async def _broken(self, _: object, __: object) -> str:
        return '{"ok": tru, "result": 1}'

    async def _wait(self, _: object, __: object) -> str:
        return await self._until_cancelled() or _error("cancelled", "as asked")

    async def _finish(self, _: object, __: object) -> str:
        return await self._until_cancelled() or _ok("finished all the same")

    async def _until_cancelled(self) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._given_up += 1
        return ""

    async def _cancelled(self, _: object, __: object) -> str:
        return _ok({"count": self._given_up})

    async def _die(self, _: object, __: object) -> None:
        return None


def _ok(result: object) -> str:
    return json.dumps({"ok": True, "result": result})


def _error(code: str, message: str, details: Mapping[str, Any] | None = None) -> str:
    return json.dumps({"ok": False, "error": {"code": code, "message": message, "details": details or {}}})
