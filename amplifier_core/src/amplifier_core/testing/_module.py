"""The conformance check of a module: its framing, its three methods and its operations, over its real transport."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from amplifier_core._modules.module import as_connection
from amplifier_core._modules.plugins import Plugins
from amplifier_core._protocol.description import check_description
from amplifier_core._protocol.errors import KernelError, UnsupportedOp, short
from amplifier_core._protocol.json import encode_checked
from amplifier_core._protocol.message import result_of
from amplifier_core.hookspecs import TRANSPORTS, Host

from ._check import Check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Connection

_AT_ONCE = 16
_SHOWN = 200  # characters of what a module wrote
_NO_SUCH_OP = "no.such-op"


async def check_module(
    descriptor: ModuleDescriptor, examples: Mapping[str, dict[str, Any]], *, seconds: float = 10.0
) -> list[Check]:
    """Check a module against the protocol: its framing, its three methods, and each op of ``examples`` with its args.

    A local module runs as an ordinary process, without isolation. ``seconds`` bounds the start and each check. Raises
    ``KernelError`` or ``TimeoutError`` only if the module cannot be started.
    """
    host = Host()
    opened = Plugins().open(TRANSPORTS, descriptor.transport["type"], descriptor=descriptor, notify=_ignore, host=host)
    connection = as_connection(opened)
    probe = _Probe(connection, descriptor, examples)
    try:
        await asyncio.wait_for(connection.start(descriptor.capabilities, None), seconds)
        checks: list[tuple[str, str, Callable[[], Awaitable[str]]]] = [
            ("health answers {'status': 'ok'}", "2", probe.health),
            ("describe matches the descriptor", "2", probe.describe),
            ("an unknown op is unsupported_op", "5", probe.unknown_op),
            ("unknown fields are ignored", "preamble", probe.unknown_field),
            *((f"op {op} answers its example", "2", partial(probe.example, op, args)) for op, args in examples.items()),
            *(
                (f"op {op} answers {_AT_ONCE} at once", "3", partial(probe.example, op, args, _AT_ONCE))
                for op, args in examples.items()
            ),
        ]
        return [Check(name, section, await _problem(check, seconds, connection)) for name, section, check in checks]
    finally:
        await connection.close()
        await host.close()


class _Probe:
    """The requests of the checks, on one connection."""

    def __init__(self, connection: Connection, descriptor: ModuleDescriptor, examples: Mapping[str, object]) -> None:
        self._connection = connection
        self._descriptor = descriptor
        self._examples = examples

    async def health(self) -> str:
        health = await self._ask("health", {})
        return "" if isinstance(health, dict) and health.get("status") == "ok" else f"got {health!r}"

    async def describe(self) -> str:
        described = check_description(await self._ask("describe", {}), self._descriptor, self._descriptor.name)
        missing = [op for op in self._examples if op not in described["inputs"] or op not in described["outputs"]]
        return f"inputs and outputs do not name {', '.join(missing)}" if missing else ""

    async def unknown_op(self) -> str:
        try:
            result = await self._ask("invoke", {"op": _NO_SUCH_OP, "args": {}})
        except UnsupportedOp:
            return ""
        return f"op {_NO_SUCH_OP!r} answered {result!r}"

    async def unknown_field(self) -> str:
        health = await self._ask("health", {"x-unknown": {"nested": [None]}})
        return "" if isinstance(health, dict) else f"got {health!r}"

    async def example(self, op: str, args: dict[str, Any], times: int = 1) -> str:
        await asyncio.gather(*(self._ask("invoke", {"op": op, "args": args}) for _ in range(times)))
        return ""

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        reply = await self._connection.request(method, encode_checked(params))
        if method == "invoke" and reply.pending and reply.is_reply():
            return None  # its system calls are well-formed; no kernel makes them here
        return result_of(reply, self._descriptor.name)


async def _problem(check: Callable[[], Awaitable[str]], seconds: float, connection: Connection) -> str:
    try:
        return await asyncio.wait_for(check(), seconds)
    except KernelError as error:
        return f"{error}{_reason(error.details)}"
    except TimeoutError:
        return f"no answer within {seconds:g} s{_reason(connection.clues())}"


def _reason(clues: Mapping[str, Any]) -> str:
    """Say on the same line what the module wrote meanwhile."""
    noise, tail = clues.get("noise"), str(clues.get("stderr", "")).strip().rpartition("\n")[2]
    stdout = f"; its stdout had a line that is no reply: {short(noise.get('first'), _SHOWN)}" if noise else ""
    return f"{stdout}; its stderr ends with {short(tail, _SHOWN)}" if tail else stdout


def _ignore(event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
    """Ignore what a connection reports: the checks look at replies alone."""
