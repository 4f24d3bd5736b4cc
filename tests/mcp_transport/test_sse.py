"""Streams of events, cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplifier_transport_mcp._sse import EventSplitter

TEXT = b": x\n\ndata: a\n\nid: 1\ndata:b\ndata: c\n\nevent: y\ndata: d\n\nevent: message\ndata: e\n\ndata: unfinished"
LONG = b"x" * 1500
FOUND = [(b"", False), (b"a", False), (b"b\nc", True), (b"", False), (b"e", False)]


class TooLargeError(Exception):
    pass


def check_size(size):
    if size > 1000:
        raise TooLargeError


def feed(pieces):
    events = EventSplitter(check_size)
    return [found for piece in pieces for found in events.feed(piece)]


@given(st.lists(st.integers(0, 2 * len(TEXT))), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_come_out_whole_however_they_are_cut(places, end):
    text = TEXT.replace(b"\n", end)
    cuts = sorted({0, *(place for place in places if place < len(text)), len(text)})
    found = feed([text[a:b] for a, b in pairwise(cuts)])
    assert [(data, named) for _, data, named in found] == FOUND
    assert b"".join(raw for raw, _, _ in found).replace(b"\n", b"") == text[: text.rindex(b"data:")].replace(
        b"\r", b""
    ).replace(b"\n", b"")


@pytest.mark.parametrize(
    "pieces",
    [[b"data:" + LONG * 2 + b"\n\n"], [b"data:" + LONG * 2], [b"data: x\n"] * 500, [b"data:" + LONG, LONG]],
    ids=["whole", "no end", "lines", "pieces"],
)  # fmt: skip
def test_an_event_that_is_too_large_is_refused_as_soon_as_it_is(pieces):
    with pytest.raises(TooLargeError):
        feed(pieces)


def test_many_small_events_are_not_one_large_one():
    assert len(feed([b"data: x\n\n" * 5000])) == 5000
