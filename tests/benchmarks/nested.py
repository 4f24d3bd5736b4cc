"""Structured arguments: rows of a table, encoded, and there and back over STDIO.

The limit is orjson, which looks at nothing: alone, and on both sides of blocking reads and writes.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from modules import mount_fast_echo
from over_stdio import Blocking, stream_client
from rounds import Contender, blocking, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan
from amplifier_core.hookspecs import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rounds import Pace

_COUNT = 500
_KINDS: dict[str, tuple[float, dict[str, Any]]] = {  # the goal for encoding, and what else a row has
    "plain": (2.0, {}),
    "floats": (2.0, {"share": 0.1}),
    "None": (2.0, {"gone": None}),
    "floats and None": (2.5, {"share": 0.1, "gone": None}),
}


async def rows(pace: Pace) -> list[Row]:
    """Measure the encoder for each kind of rows, then whole calls with the first and the last of them."""
    encoded = [await _encoding(kind, goal, pace) for kind, (goal, _) in _KINDS.items()]
    with tempfile.TemporaryDirectory() as folder, Blocking() as limit:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel, stream_client() as streams:
            session = await kernel.session.create(Plan(goal="measure"))
            ours = functools.partial(session.invoke, await mount_fast_echo(session), "echo")
            calls = []
            for kind, goal in (("plain", None), ("floats and None", Goal(1.6))):
                args = table_of(kind)
                assert limit.call(args)["result"] == await ours(args) == args
                samples = await compare(
                    (
                        Contender("limit", blocking(functools.partial(limit.call, args))),
                        Contender("ours", sequential(functools.partial(ours, args))),
                        Contender("streams", sequential(functools.partial(streams, args))),
                    ),
                    pace,
                )
                path = f"stdio, {_COUNT} rows there and back: {kind}"
                calls.append(Row.of(path, samples, peers={"StreamReader": "streams"}, goal=goal))
    return [*encoded, *calls]


async def _encoding(kind: str, goal: float, pace: Pace) -> Row:
    args = table_of(kind)
    assert orjson.loads(encode(args, "args")) == args
    samples = await compare(
        (
            Contender("limit", blocking(functools.partial(orjson.dumps, args))),
            Contender("ours", blocking(functools.partial(encode, args, "args"))),
        ),
        pace,
    )
    return Row.of(f"encode {_COUNT} rows: {kind}", samples, goal=Goal(goal))


def table_of(kind: str) -> dict[str, Any]:
    """Make arguments with so many rows of one kind."""
    return {"rows": list(_rows(_KINDS[kind][1]))}


def _rows(more: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the rows. No two floats are the same."""
    for n in range(_COUNT):
        own = {key: value if value is None else value + n / 7 for key, value in more.items()}
        row = {"id": n, "name": f"name {n}", "mail": f"n{n}@example.org", "city": "Zürich"}
        yield {**row, "count": n * 7919, "active": n % 2 == 0, **own}
