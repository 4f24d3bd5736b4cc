"""Lines of a stream, as they are cut; the framing of STDIO has its own tests of the same buffer."""

from amplifier_core.hookspecs import LineBuffer


def test_what_has_no_end_of_line_is_the_rest():
    lines = LineBuffer(10)
    assert lines.feed(b"one\ntw") == [b"one\n"]
    assert lines.feed(b"o") == []
    assert lines.rest() == b"two"
