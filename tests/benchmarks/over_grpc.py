"""Calls over gRPC: the kernel beside the same unary call of grpc.aio by hand, on one server.

The call by hand has a deadline and a trace, as every call of the kernel's has. A bare one, without both, is beside it.
"""

from __future__ import annotations

import functools
import secrets
import subprocess
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from modules import FAST_GRPC, descriptor, text_of
from rounds import Contender, at_once, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Pace

_SEQUENTIAL, _AT_ONCE = "gRPC, 200 B, sequential", "gRPC, 200 B, 32 at once, per request"
_CALLERS = 32
_ARGS = text_of(200)


async def rows(pace: Pace) -> list[Row]:
    """Measure one request after another, and many at once. Without the transport give nothing."""
    if not entry_points(group="amplifier_core.transports", name="grpc"):
        return [Row(path=path, note="amplifier-transport-grpc is not installed") for path in (_SEQUENTIAL, _AT_ONCE)]
    import grpc.aio  # noqa: PLC0415 - comes with the transport
    from fast_grpc import decode, encode  # noqa: PLC0415 - as above

    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(FAST_GRPC, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        address = f"127.0.0.1:{process.stdout.readline().strip()}"
        transport = {"type": "grpc", "target": f"dns:///{address}", "tls": False}
        async with (
            Kernel(event_log=Path(folder) / "log.jsonl") as kernel,
            grpc.aio.insecure_channel(address) as channel,
        ):
            session = await kernel.session.create(Plan(goal="measure"))
            mounted = await session.mount("/mnt/tools", descriptor("echo", transport))
            ours = functools.partial(session.invoke, mounted["path"], "echo", _ARGS)
            call: Any = channel.unary_unary("/amplifier.v1.Module/Invoke")

            async def bare(**options: Any) -> Any:
                params = orjson.dumps({"op": "echo", "args": _ARGS})
                return orjson.loads(decode(await call(encode(params), **options)))

            async def by_hand() -> Any:
                trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
                return await bare(timeout=30.0, metadata=(("traceparent", trace),))

            assert await ours() == (await bare())["result"] == (await by_hand())["result"] == _ARGS
            samples = await compare(
                (
                    Contender("limit", sequential(by_hand)),
                    Contender("ours", sequential(ours)),
                    Contender("bare", sequential(bare)),
                    Contender("limit at once", at_once(by_hand, _CALLERS), step=_CALLERS),
                    Contender("ours at once", at_once(ours, _CALLERS), step=_CALLERS),
                    Contender("bare at once", at_once(bare, _CALLERS), step=_CALLERS),
                ),
                pace,
            )
        process.communicate()
    return [
        Row.of(_SEQUENTIAL, samples, peers={"bare": "bare"}, goal=Goal(1.15)),
        Row.of(
            _AT_ONCE,
            samples,
            limit="limit at once",
            ours="ours at once",
            peers={"bare": "bare at once"},
            goal=Goal(1.15),
        ),
    ]
