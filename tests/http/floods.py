"""Answers of a server that means ill, as bytes without end or far too many: what `test_floods` sends."""

import gzip
import itertools
import zlib

MB = 2**20
HEAD = b"HTTP/1.1 200 OK\r\n"
NDJSON = HEAD + b"content-type: application/x-ndjson\r\n"
PACKED = b"content-encoding: gzip\r\n\r\n"
REPLY = b'{"ok":true,"result":1}\n'


def packed(parts):
    """Pack parts as one member of gzip."""
    packer = zlib.compressobj(9, wbits=31)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def forever(data, size=64 * 1024):
    """Repeat some bytes without end, about ``size`` bytes at once."""
    return itertools.repeat(data * (size // len(data) + 1))


def blank_lines_in_gzip():
    yield NDJSON + PACKED
    yield from packed([b"\n" * MB] * 24 + [REPLY])


def a_million_chunks_in_gzip():
    yield NDJSON + PACKED
    yield from packed([b'{"chunk":1}\n' * 10_000] * 100 + [REPLY])


def a_gigabyte_in_gzip():
    yield HEAD + PACKED
    yield from packed([b" " * MB] * 1024)


def empty_members():
    yield HEAD + PACKED
    yield from forever(gzip.compress(b""))


def members_of_one_byte():
    yield HEAD + PACKED
    yield from forever(gzip.compress(b" "))


def lines_of_members_of_one_byte():
    yield NDJSON + PACKED
    yield from forever(gzip.compress(b" "))


def empty_blocks():
    packer = zlib.compressobj(9, wbits=31)
    yield HEAD + PACKED + packer.compress(b" ") + packer.flush(zlib.Z_SYNC_FLUSH)
    yield from forever(b"\0\0\0\xff\xff")


def a_name_in_gzip_without_end():
    yield HEAD + PACKED + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03"
    yield from forever(b"x")


def blank_lines():
    yield NDJSON + b"\r\n"
    yield from forever(b"\n")


def blank_lines_after_the_reply():
    yield NDJSON + b"\r\n" + REPLY
    yield from forever(b" \n")


def chunks_of_one_byte():
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n"
    yield from forever(b"1\r\n \r\n")


def lines_of_chunks_of_one_byte():
    yield NDJSON + b"transfer-encoding: chunked\r\n\r\n"
    yield from forever(b"1\r\n \r\n")


def chunks_with_long_extensions():
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n"
    yield from forever(b"1;" + b"x" * 10_000 + b"\r\n \r\n")


def a_body_without_end():
    yield HEAD + b"\r\n"
    yield from forever(b" ")


def a_body_of_30_megabytes():
    yield HEAD + b'\r\n{"ok":true,"result":"'
    yield from itertools.repeat(b"x" * MB, 30)
    yield b'"}'


def a_line_of_30_megabytes_in_gzip():
    yield NDJSON + PACKED
    yield from packed([b'{"chunk":"', *[b"x" * MB] * 30, b'"}\n', REPLY])


def a_description_of_30_megabytes():
    yield HEAD + b'\r\n{"name":"'
    yield from itertools.repeat(b"x" * MB, 30)
    yield b'"}'


def a_failed_description_of_30_megabytes():
    yield HEAD + b'\r\n{"ok":false,"error":{"code":"x","message":"'
    yield from itertools.repeat(b"x" * MB, 30)
    yield b'"}}'


def a_body_of_millions_of_values():
    yield HEAD + b'\r\n{"ok":true,"result":[0'
    yield from itertools.repeat(b",[]" * (MB // 3), 30)
    yield b"]}"


def an_error_of_30_megabytes():
    yield b"HTTP/1.1 500 NO\r\n\r\n<html>"
    yield from itertools.repeat(b"\xff" * MB, 30)


def continues():
    yield from forever(b"HTTP/1.1 100 Continue\r\n\r\n")


def headers():
    yield HEAD
    yield from forever(b"x: y\r\n")


def trailers():
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n"
    yield from forever(b"x: y\r\n")
