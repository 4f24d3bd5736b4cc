"""The libraries beside a program: what an ELF file asks its loader for, outside the system's folders.

Owns reading the file's headers. What it does not understand has no libraries, and the loader will say what is missing.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: what the system call filter is made for
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _SIZE, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_TABLE_MAX = 1 << 20  # bytes; more than any that a linker makes


def find_libraries(program: str, env: Mapping[str, str], known: Callable[[str], bool]) -> list[str]:
    """List the libraries, and the loader, of a program that are looked for in folders of their own, with theirs.

    What is ``known`` is there anyway, and so is what it needs.
    """
    found: dict[str, None] = {}
    todo = [program]
    while todo:
        for path in _beside(todo.pop(), env.get("LD_LIBRARY_PATH", "")):
            if path not in found and not known(path) and _is_elf(path):
                found[path] = None
                todo.append(path)
    return list(found)


def _beside(path: str, more: str) -> Iterator[str]:
    """Say where the loader may look for what a file needs."""
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


def _is_elf(path: str) -> bool:
    """Tell whether this is a program or a library: any other file is one that somebody would like to read."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _read(file: BinaryIO) -> tuple[str, list[str], str]:
    """Read the loader, the names of the libraries, and the folders to look in."""
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
    """Find where in the file an address is."""
    for kind, _, place, start, _, length in segments:
        if kind == _LOAD and start <= address < start + length:
            return place + address - start
    raise ValueError("an address in no segment")


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode(errors="surrogateescape")
