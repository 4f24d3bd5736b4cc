import itertools
import random
import re
import time

import pytest

from amplifier_core._protocol.ids import Clock, Ids, Span
from amplifier_core.hookspecs import traceparent


def test_an_id_is_16_hex_digits():
    ids = Ids()
    assert all(re.fullmatch("[0-9a-f]{16}", ids.hex16()) for _ in range(2000))


def test_ids_differ_beyond_the_end_of_a_pool():
    ids = Ids()
    assert len({ids.hex16() for _ in range(20_000)}) == 20_000


def test_two_sources_share_nothing():
    assert {Ids().hex16() for _ in range(10)}.isdisjoint({Ids().hex16() for _ in range(10)})


def test_ids_are_the_bytes_of_the_source_of_entropy():
    source = random.Random(7)
    expected = random.Random(7)
    ids = Ids(source.randbytes)
    drawn = "".join(ids.hex16() for _ in range(1500))
    assert "".join(expected.randbytes(4096).hex() for _ in range(3)).startswith(drawn)


def test_entropy_is_drawn_when_it_is_needed():
    draws = []

    def entropy(count):
        draws.append(count)
        return bytes(count)

    ids = Ids(entropy)
    assert draws == []
    for _ in range(draws_per_pool := 4096 // 8):
        ids.hex16()
    assert draws == [4096]
    ids.hex16()
    assert draws == [4096, 4096]
    assert draws_per_pool == 512


def test_a_request_is_one_tree_of_spans():
    ids = Ids()
    root = ids.root()
    child = ids.child(root)
    grandchild = ids.child(child)
    assert root.parent_span_id is None
    assert re.fullmatch("[0-9a-f]{32}", root.request_id)
    assert {root.request_id, child.request_id, grandchild.request_id} == {root.request_id}
    assert (child.parent_span_id, grandchild.parent_span_id) == (root.span_id, child.span_id)
    spans = (root, child, grandchild)
    assert all(one.span_id != other.span_id for one, other in itertools.combinations(spans, 2))
    assert ids.root().request_id != root.request_id


def test_seeded_spans_are_the_same():
    def draw():
        ids = Ids(random.Random(7).randbytes)
        return ids.child(ids.root())

    assert draw() == draw()
    assert isinstance(draw(), Span)


def test_the_standard_time_module_is_a_clock():
    clock: Clock = time
    assert clock.time() > 1.7e9
    assert clock.monotonic() <= clock.monotonic()


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("op", ["count", r"a \" b", "\\\\", "ü", "x" * 300])
def test_the_trace_of_a_request_stands_before_its_arguments(op):
    told = f'{{"op":"{op}","request_id":"{TRACE}","span_id":"{SPAN}","args":{{}}}}'
    assert traceparent(told.encode()) == f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize(
    "told",
    [
        "{}",
        '{"op":"on_event","args":{"event":{}}}',
        f'{{"op":"count","request_id":"req_1","span_id":"{SPAN}"}}',
        f'{{"op":"count","request_id":"{TRACE.upper()}","span_id":"{SPAN}"}}',
        f'{{"op":"count","request_id":"{TRACE}","span_id":"{SPAN[1:]}"}}',
        f'{{"args":{{"op":"count","request_id":"{TRACE}","span_id":"{SPAN}"}}}}',
        f'{{"op":"\\","request_id":"{TRACE}","span_id":"{SPAN}"}}',
    ],
)
def test_parameters_without_a_trace_have_none(told):
    assert traceparent(told.encode()) is None
