"""The libraries of a program that are not the system's: those that an ELF file asks its loader for.

Owns reading the file's headers. In a file that it cannot read it finds no libraries; the loader then names the missing.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

from ._paths import read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as on each machine that has a filter
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _SIZE, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_TABLE_MAX = 1 << 20  # bytes; more than a linker makes


def find_libraries(program: str, env: Mapping[str, str], known: Callable[[str], bool]) -> list[str]:
    """List a program's loader and libraries, with the libraries that these need.

    A path that is ``known`` is left out, with all that it needs: the sandbox has it already.
    """
    found: dict[str, None] = {}
    todo = [program]
    while todo:
        for path in _candidates(todo.pop(), env.get("LD_LIBRARY_PATH", "")):
            # Without a look at its beginning, a program could bring any file by naming it as a library.
            if path not in found and not known(path) and read_head(path, len(_MAGIC)) == _MAGIC:
                found[path] = None
                todo.append(path)
    return list(found)


def _candidates(path: str, more: str) -> Iterator[str]:
    """Yield the paths at which the loader may look for the libraries that a file needs."""
    try:
        with open(path, "rb") as file:
            loader, needed, folders = _read(file)
    except (OSError, ValueError, struct.error):
        return
    if loader:
        yield loader
    origin = os.path.dirname(os.path.realpath(path))
    for folder in filter(None, f"{folders}:{more}".split(":")):
        place = folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin)
        if place.startswith("/"):
            yield from (os.path.normpath(f"{place}/{name}") for name in needed)


def _read(file: BinaryIO) -> tuple[str, list[str], str]:
    """Return the loader, the names of the libraries, and the folders to look in, parted by colons."""
    head = file.read(64)
    if not head.startswith(_MAGIC):
        return "", [], ""
    offset, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
    segments = [struct.unpack("<IIQQQQ", _at(file, offset + n * size, 40)) for n in range(count)]
    loader = "".join(
        _text(_at(file, place, length), 0) for kind, _, place, _, _, length in segments if kind == _INTERPRETER
    )
    entries: list[tuple[int, int]] = []
    for kind, _, place, _, _, length in segments:
        if kind == _DYNAMIC:
            entries += struct.iter_unpack("<qQ", _at(file, place, min(length, _TABLE_MAX) // 16 * 16))
    values = dict(entries)
    if _STRINGS not in values:
        return loader, [], ""
    strings = _at(file, _offset(values[_STRINGS], segments), min(values.get(_SIZE, 0), _TABLE_MAX))
    needed = [_text(strings, value) for tag, value in entries if tag == _NEEDED]
    return loader, needed, ":".join(_text(strings, value) for tag, value in entries if tag in (_RPATH, _RUNPATH))


def _offset(address: int, segments: list[tuple[int, ...]]) -> int:
    """Return the offset in the file of an address in memory."""
    for kind, _, place, start, _, length in segments:
        if kind == _LOAD and start <= address < start + length:
            return place + address - start
    raise ValueError("an address in no segment")


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode(errors="surrogateescape")
