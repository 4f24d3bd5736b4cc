"""WASI programs: a call beside one of a native module over STDIO, and a start with compiled code that was kept."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import FAST_ECHO, descriptor, mount_fast_echo, text_of
from rounds import Contender, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Measure, Pace

    from amplifier_core import Session

_CALL, _START = "WebAssembly, 200 B, to a native module", "start of a WebAssembly module"
_COMPILER = Path(__file__).parents[1] / "wasm_transport" / "compiler.py"
_ARGS = text_of(200)
_LIMITS = {"memory_bytes": 16 << 20}


async def rows(pace: Pace) -> list[Row]:
    """Measure one call after another, and one start after another. Without the transport give nothing."""
    for name, found in (("amplifier-transport-wasm", _is_installed()), ("ziglang", find_spec("ziglang"))):
        if not found:
            return [Row(path=path, note=f"{name} is not installed") for path in (_CALL, _START)]
    wasm = descriptor("probe", {"type": "wasm", "module": str(_compile())})
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": folder, "XDG_STATE_HOME": folder}
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            return [await _calls(session, wasm, pace), await _starts(session, wasm, pace)]


async def _calls(session: Session, wasm: dict[str, Any], pace: Pace) -> Row:
    native = functools.partial(session.invoke, await mount_fast_echo(session), "echo", _ARGS)
    ours = functools.partial(session.invoke, (await session.mount("/mnt/tools", wasm))["path"], "echo", _ARGS)
    assert await native() == await ours() == _ARGS
    samples = await compare((Contender("limit", sequential(native)), Contender("ours", sequential(ours))), pace)
    await session.unmount("/mnt/tools")
    return Row.of(_CALL, samples, goal=Goal(5.0))


async def _starts(session: Session, wasm: dict[str, Any], pace: Pace) -> Row:
    native = descriptor("echo", {"type": "stdio", "command": [*FAST_ECHO, "echo"]})
    limited = wasm | {"limits": _LIMITS}
    await _start(session, limited)  # it is compiled
    samples = await compare(
        (
            Contender("limit", _starting(session, native), at_most=1),
            Contender("ours", _starting(session, limited), at_most=1),
        ),
        pace,
    )
    return Row.of(_START, samples, goal=Goal(amount=150_000.0))


def _starting(session: Session, module: dict[str, Any]) -> Measure:
    async def measure(n: int) -> float:
        return sum([await _start(session, module) for _ in range(n)]) / n

    return measure


async def _start(session: Session, module: dict[str, Any]) -> float:
    """Mount a module, give the seconds that took, and let it end."""
    began = time.perf_counter()
    await session.mount("/mnt/tools", module, trusted=True)
    took = time.perf_counter() - began
    await session.unmount("/mnt/tools")
    return took


def _is_installed() -> bool:
    return bool(entry_points(group="amplifier_core.transports", name="wasm"))


def _compile() -> Path:
    """Compile the module of the tests, whose folder is no package here."""
    spec = spec_from_file_location("compiler", _COMPILER)
    assert spec is not None
    assert spec.loader is not None
    compiler = module_from_spec(spec)
    spec.loader.exec_module(compiler)
    compiled: Path = compiler.compile_c("probe")
    return compiled
