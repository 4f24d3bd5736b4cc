import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplifier_core.hookspecs import LineBuffer, LineTooLongError

LINES = st.lists(st.binary(min_size=1, max_size=50).map(lambda line: b"{" + line.replace(b"\n", b"\r") + b"}"))


def cut(data, places):
    """Cut bytes into pieces, at any places."""
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(at) if start < end]


@given(LINES, st.lists(st.integers(min_value=0)))
def test_lines_come_out_whole_however_they_are_cut(lines, places):
    buffer = LineBuffer(1000)
    stream = b"".join(line + b"\n" for line in lines)
    found = [line.rstrip(b"\n") for piece in cut(stream, places) for line in buffer.feed(piece)]
    assert found == lines


@given(LINES)
def test_one_byte_at_a_time_is_the_same(lines):
    buffer = LineBuffer(1000)
    stream = b"".join(line + b"\n" for line in lines)
    assert [line.rstrip(b"\n") for n in range(len(stream)) for line in buffer.feed(stream[n : n + 1])] == lines


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0)))
def test_any_bytes_are_lines_or_wait_and_none_is_lost(data, places):
    buffer = LineBuffer(1000)
    found = [line.rstrip(b"\n") for piece in cut(data, places) for line in buffer.feed(piece)]
    found += [line.rstrip(b"\n") for line in buffer.feed(b"end\n")]
    expected = [line for line in (data + b"end").split(b"\n") if line and not line.isspace()]
    assert [line for line in found if line and not line.isspace()] == expected


def test_only_a_line_feed_ends_a_line():
    text = '{"a":"\u2028\u2029\u0085\v\f\x1c"}\r\n'
    (line,) = LineBuffer(100).feed(text.encode())
    assert json.loads(line.decode(), strict=False) == {"a": "\u2028\u2029\u0085\v\f\x1c"}


@pytest.mark.parametrize(
    "pieces", [[b"x" * 11], [b"x" * 6, b"x" * 6], [b"x" * 11 + b"\n"], [b"a\n" + b"x" * 11 + b"\nb\n"]]
)
def test_a_line_that_is_too_long_is_refused_as_soon_as_it_is(pieces):
    buffer = LineBuffer(10)
    *first, last = pieces
    for piece in first:
        assert buffer.feed(piece) == []
    with pytest.raises(LineTooLongError):
        buffer.feed(last)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x" * 10 + b"\n"],
        [b"x" * 4, b"x" * 6 + b"\n"],
        [b"x" * 10, b"\n"],
        [b"a\n" + b"x" * 10 + b"\nb\n"],
        [b"a", b"b\n" + b"x" * 10, b"\n"],
    ],
)
def test_a_line_of_just_the_limit_is_one_like_others(pieces):
    buffer = LineBuffer(10)
    assert b"x" * 10 in [line.rstrip(b"\n") for piece in pieces for line in buffer.feed(piece)]


def test_blank_lines_are_nothing():
    assert LineBuffer(10).feed(b"\n \r\n\na\n\n") == [b"a\n"]


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \t\n"])
def test_a_blank_line_that_comes_alone_is_nothing_too(blank):
    assert LineBuffer(10).feed(blank) == []


def test_the_blank_lines_of_a_read_are_counted():
    lines = LineBuffer(10)
    counts = [lines.blank]
    for data in (b"\n \r\n\na\n\n", b"a\n", b"\r\n", b"a", b" \n\n", b"b\nc\n"):
        lines.feed(data)
        counts.append(lines.blank)
    assert counts == [0, 4, 0, 1, 0, 1, 0]


def test_an_incomplete_last_line_is_the_rest():
    lines = LineBuffer(10)
    assert lines.feed(b"one\nt") == [b"one\n"]
    assert lines.feed(b"wo") == []
    assert lines.rest() == b"two"
