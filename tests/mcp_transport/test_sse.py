"""Streams of events, cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplifier_transport_mcp._sse import ID_MAX, EventSplitter

TEXT = (
    b": x\n\ndata: a\n\nid: 1\ndata:b\ndata: c\n\nevent: y\ndata: d\n\n"
    b"event: message\ndata\ndata: e\n\ndata: unfinished"
)
LONG = b"x" * 3500
FOUND = [(b"", None), (b"a", None), (b"b\nc", b"1"), (b"", None), (b"\ne", None)]


class TooLargeError(Exception):
    pass


def check_size(size):
    if size > 1000:
        raise TooLargeError


def feed(pieces):
    events = EventSplitter(check_size)
    return [found for piece in pieces for found in events.feed(piece)]


@given(st.lists(st.integers(0, 2 * len(TEXT))), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_events_come_out_whole_however_they_are_cut(places, end, mark):
    text = b"\xef\xbb\xbf" * mark + TEXT.replace(b"\n", end)
    cuts = sorted({0, *(place for place in places if place < len(text)), len(text)})
    assert feed([text[a:b] for a, b in pairwise(cuts)]) == FOUND


def test_a_line_end_that_is_cut_in_two_is_one():
    assert feed([b"data: a\r", b"\n", b"\r", b"\n", b"data: b\n\n"]) == [(b"a", None), (b"b", None)]


def test_a_mark_of_the_byte_order_belongs_to_no_field():
    assert feed([b"\xef\xbb\xbfdata: a\n\n"]) == [(b"a", None)]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data:" + LONG + b"\n\n"],
        [b"data:" + LONG],
        [b"data: x\n"] * 5000,
        [LONG[:1000]] * 4,
        [b"data:" + b"x" * 1001, b"\n\n"],
    ],
    ids=["whole", "no end", "lines", "pieces", "by one"],
)  # fmt: skip
def test_an_event_that_is_too_large_is_refused_as_soon_as_it_is(pieces):
    with pytest.raises(TooLargeError):
        feed(pieces)


def test_many_small_events_are_not_one_large_one():
    assert len(feed([b"data: x\n\n" * 5000])) == 5000


def test_comments_without_end_are_no_event_and_not_kept():
    assert feed([b": x\n" * 5000, b":\n" * 5000, b"\n"]) == [(b"", None)]


@pytest.mark.parametrize(
    ("line", "retry"),
    [("retry: 20", 20), ("retry:20", 20), ("retry: -1", 0), ("retry: 1e3", 0), ("retry: " + "9" * 401, 999_999_999)],
)
def test_the_wish_to_wait_is_a_number_that_is_not_large(line, retry):
    events = EventSplitter(check_size)
    list(events.feed(line.encode() + b"\n"))
    assert events.retry == retry


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"id", (b"a", b"")),
        (b"id: x\0", (b"a", None)),
        (b"id: " + b"x" * ID_MAX, (b"a", b"x" * ID_MAX)),
        (b"event: " + b"x" * 2000, (b"", None)),
        (b"nothing", (b"a", None)),
    ],
    ids=["empty", "zero", "long", "kind", "unknown"],
)
def test_fields_beside_the_data(line, found):
    assert feed([line + b"\ndata: a\n\n"]) == [found]


def test_an_id_that_is_too_long_stays_too_long():
    ((_, found),) = feed([b"id: " + b"x" * 2000 + b"\n\n"])
    assert found is not None
    assert len(found) > ID_MAX
