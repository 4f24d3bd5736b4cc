"""The libraries of a program that are not the system's: those that an ELF file asks its loader for.

Owns reading the file's headers. In a file that it cannot read it finds no libraries; the loader then names the missing.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ._search import Search

    _Part = Callable[[int, int], bytes]  # reads a number of bytes at an offset of one file

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as on each machine that has a filter
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _SIZE, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_SEGMENTS_MAX = 64
_SEGMENT_MAX = 64  # bytes of a header; all have 56
_ENTRIES_MAX = 4096  # of the dynamic section
_TABLE_MAX = 1 << 20  # bytes; more than a linker makes
_TEXT_MAX = 4096  # of a path or a name
_NAMES_MAX = 256  # libraries that one file needs, and folders to look in
_LIBRARIES_MAX = 512


def find_libraries(program: str, env: Mapping[str, str], known: Callable[[str], bool], search: Search) -> list[str]:
    """List a program's loader and libraries, with the libraries that these need. ``program`` is a real path.

    A path that is ``known`` is left out, with all that it needs: the sandbox has it already. Raises ``Unreachable`` if
    there are too many.
    """
    found: dict[str, None] = {}
    tried: set[str] = set()
    todo = [program]
    while todo:
        needing = todo.pop()
        for path in _candidates(needing, env.get("LD_LIBRARY_PATH", ""), search):
            if path in tried or known(path):
                continue
            tried.add(path)
            real = search.resolve(path, needing).real
            # Without a look at its beginning, a program could bring any file by naming it as a library.
            if search.read(real, len(_MAGIC)) == _MAGIC:
                found[path] = None
                todo.append(real)
        if len(found) > _LIBRARIES_MAX:
            raise Unreachable(f"{program} needs more than {_LIBRARIES_MAX} libraries that are not the system's")
    return list(found)


def _candidates(path: str, more: str, search: Search) -> Iterator[str]:
    """Yield the paths at which the loader may look for the libraries that a file needs."""
    try:
        loader, needed, folders = _read(lambda at, size: search.read(path, size, at))
    except (ValueError, struct.error):
        return
    if loader:
        yield loader
    origin = os.path.dirname(path)
    for folder in [word for word in f"{folders}:{more}".split(":", _NAMES_MAX) if word][:_NAMES_MAX]:
        place = folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin)
        if place.startswith("/"):
            yield from (os.path.normpath(f"{place}/{name}") for name in needed)


def _read(part: _Part) -> tuple[str, list[str], str]:
    """Return the loader, the names of the libraries, and the folders to look in, parted by colons."""
    head = part(0, 64)
    if not head.startswith(_MAGIC):
        return "", [], ""
    offset, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
    table = part(offset, min(count, _SEGMENTS_MAX) * min(size, _SEGMENT_MAX))
    segments = [struct.unpack_from("<IIQQQQ", table, n * size) for n in range(min(count, _SEGMENTS_MAX))]
    places = {kind: (place, length) for kind, _, place, _, _, length in reversed(segments)}  # the first of each kind
    loader = _text(part(places[_INTERPRETER][0], _TEXT_MAX), 0) if _INTERPRETER in places else ""
    place, length = places.get(_DYNAMIC, (0, 0))
    entries = list(struct.iter_unpack("<qQ", part(place, min(length // 16, _ENTRIES_MAX) * 16)))
    values = dict(entries)
    if _STRINGS not in values:
        return loader, [], ""
    strings = part(_offset(values[_STRINGS], segments), min(values.get(_SIZE, 0), _TABLE_MAX))
    text = partial(_text, strings)
    needed = [value for tag, value in entries if tag == _NEEDED][:_NAMES_MAX]
    folders = [value for tag, value in entries if tag in (_RPATH, _RUNPATH)][:_NAMES_MAX]
    return loader, list(map(text, needed)), ":".join(map(text, folders))


def _offset(address: int, segments: list[tuple[int, ...]]) -> int:
    """Return the offset in the file of an address in memory."""
    for kind, _, place, start, _, length in segments:
        if kind == _LOAD and start <= address < start + length:
            return place + address - start
    raise ValueError("an address in no segment")


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start, start + _TEXT_MAX)].decode(errors="surrogateescape")
