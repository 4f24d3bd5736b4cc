"""A sample of the table of bounds: one place of each kind, on each transport. `-s bounds` plays all of them.

Here other tests run at the same time, and two processors of one core are half as fast. So a gap may be twice as long.
"""

from __future__ import annotations

import pytest
from tests.bounds.places import PLACES, SIZES
from tests.bounds.stage import GAP, GROWTH, play
from tests.conftest import missing_here
from tests.nats_transport.servers import program

SAMPLE = {
    "stdio": ('"ok":true,"result":@', '"ok":true,"result":1,"events":@', "a line"),
    "http": ("a chunk", "a header", "many headers"),
    "mcp": ("tools", "a notification again and again"),
    "mcp-http": ("data",),
    "nats": ("a message", "many headers", "alive again and again"),
}


@pytest.mark.newest
@pytest.mark.usefixtures("peak_of_memory")
@pytest.mark.parametrize(("transport", "name"), [(key, name) for key, names in SAMPLE.items() for name in names])
def test_whatever_is_sent_the_loop_runs_on_and_the_memory_is_bounded(transport, name, tmp_path):
    if transport == "nats" and program() is None:
        missing_here("nats-server is not installed")
    [place] = [place for place in PLACES[transport]() if place.name == name]
    seen = play(place, transport, [(filler, size) for filler in place.fillers[:3] for size in SIZES], tmp_path)
    assert not [row for row in seen if row.growth > GROWTH]
    assert not [row for row in seen if row.gap > 2 * GAP]
