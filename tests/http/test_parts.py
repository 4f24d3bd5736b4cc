"""Parts of the transport whose cases seldom come from a server as a whole."""

from amplifier_transport_http._pool import Headers
from amplifier_transport_http._small_reads import _Frames

GOAWAY = b"\0\0\x08\x07\0" + bytes(4) + b"\x7f\xff\xff\xff" + bytes(4)


def test_headers_are_read_as_utf_8_or_else_as_latin_1():
    headers = Headers([(b"a", "é".encode()), (b"b", b"\xe9"), (b"c", b"1"), (b"c", b"2")])
    assert [headers.get(name) for name in "abc"] == ["é", "é", "1, 2"]
    assert headers.get("d", "none") == "none"


def test_a_good_bye_that_comes_in_two_reads_is_one():
    for cut in range(9, len(GOAWAY)):
        frames = _Frames()
        frames.feed(GOAWAY[:cut])
        assert not frames.leaving
        frames.feed(GOAWAY[cut:])
        assert frames.leaving
