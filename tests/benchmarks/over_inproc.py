"""Calls of a Python object in this process: through the kernel, beside the function with its arguments as JSON.

The peers are a plain function, which runs in a thread, and functions of the kit.
"""

from __future__ import annotations

import functools
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from modules import text_of
from rounds import Contender, compare, sequential
from table import Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Pace

_PATH = "in the process, 200 B, sequential"
_ARGS = text_of(200)


class _Echo:
    """A module that gives its arguments back."""

    def __init__(self, name: str) -> None:
        self._name = name

    def describe(self) -> dict[str, Any]:
        return {"name": self._name, "kind": "tool", "capabilities": [], "inputs": {"echo": {}}, "outputs": {"echo": {}}}


class _Async(_Echo):
    async def invoke(self, _op: str, args: dict[str, Any], _context: object) -> Any:
        return args


class _Plain(_Echo):
    def invoke(self, _op: str, args: dict[str, Any], _context: object) -> Any:
        return args


async def _least() -> Any:
    """Do what every call has to: write the arguments, read them, and the same with the result."""

    async def echo(args: Any) -> Any:
        return args

    return orjson.loads(orjson.dumps(await echo(orjson.loads(orjson.dumps(_ARGS)))))


async def rows(pace: Pace) -> list[Row]:
    """Measure one call after another. Without the transport and the kit give nothing."""
    if not entry_points(group="amplifier_core.transports", name="inproc"):
        return [Row(path=_PATH, note="amplifier-transport-inproc is not installed")]
    from amplifier_module import Module  # noqa: PLC0415 - it is installed beside the transport
    from amplifier_transport_inproc import descriptor_of  # noqa: PLC0415

    kit = Module("kit")

    @kit.op(name="echo")
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    contenders = [Contender("limit", sequential(_least))]
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            for name, module in (("ours", _Async("ours")), ("plain", _Plain("plain")), ("kit", kit)):
                mounted = await session.mount("/mnt/tools", descriptor_of(module), trusted=True)
                call = functools.partial(session.invoke, mounted["path"], "echo", _ARGS)
                assert await call() == await _least() == _ARGS
                contenders.append(Contender(name, sequential(call)))
            samples = await compare(contenders, pace)
    return [Row.of(_PATH, samples, peers={"in a thread": "plain", "kit": "kit"})]
