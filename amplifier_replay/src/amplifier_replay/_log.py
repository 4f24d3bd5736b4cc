"""A recorded log: its lines as events, read in order, and what is ahead of the reader.

Owns the reading and the doubts: what is no whole recording of one kernel is refused, with the line. It does not know
what an event means.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from functools import partial
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from amplifier_core import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

LINE_MAX = 256 * 1024 * 1024
"""Bytes of a line that is read."""

_SHOWN = 60  # characters
_BLOCK = 64 * 1024  # bytes
_START_MAX = 64 * 1024  # bytes of a first line that are looked at
_AHEAD_LINES, _AHEAD_BYTES = 10_000, 64 * 1024 * 1024
"""How much is kept of what was read ahead."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One event of a log (protocol, section 7). Its ``data`` and ``error`` are not decoded."""

    id: str
    ts: float
    event: str
    component: str
    seq: int | None = None
    module: str | None = None
    status: str | None = None
    duration_ms: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    data: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET

    def read(self) -> dict[str, Any]:
        """Decode ``data``."""
        return {} if self.data is UNSET else msgspec.json.decode(self.data)

    def read_error(self) -> dict[str, Any]:
        """Decode ``error``."""
        return {} if self.error is UNSET else msgspec.json.decode(self.error)

    def about(self) -> str:
        """Name the event in one line, for people."""
        of = f" of {self.module}" if self.module else ""
        return f"{self.event}{of}"


class Settings(msgspec.Struct):
    """What ``kernel:start`` tells of the kernel that was recorded."""

    observer_queue: Annotated[int, Meta(gt=0)]
    fragment_bytes: Annotated[int, Meta(gt=0)]


class Start(msgspec.Struct):
    """``data`` of ``kernel:start``."""

    kernel: str
    recording: Settings


_decode = msgspec.json.Decoder(Entry).decode
read_start = msgspec.json.Decoder(Start).decode
"""Read ``data`` of ``kernel:start``."""


class UnusableLog(BadRequest):
    """A log that is no whole recording. The message says where, and what was expected."""


class Line(msgspec.Struct):
    """One line of a log, as text and as an event."""

    text: bytes
    entry: Entry


def texts(path: Path) -> Generator[tuple[str, bytes], None, None]:
    """Give each line of a log's files, and where it stands. A line that is too long is given in part.

    The files are those that were full before, ``PATH.1``, ``PATH.2`` …, and the log itself. Raises ``UnusableLog`` for
    what cannot be read.
    """
    for each in _files(path):
        try:
            with each.open("rb", buffering=_BLOCK) as file:
                name = str(each)
                for number, text in enumerate(iter(partial(file.readline, LINE_MAX + 1), b""), 1):
                    yield f"{name}:{number}", text
        except OSError as error:
            raise UnusableLog(f"{each}: cannot be read: {error.strerror}") from None


def _files(path: Path) -> Iterator[Path]:
    """Give the files of a log, the oldest first. One that begins with a kernel's start has none before."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        if b'"event":"kernel:start"' not in file.readline(_START_MAX):
            number = 1
            while (full := path.with_name(f"{path.name}.{number}")).exists():
                yield full
                number += 1
    yield path


def lines(path: Path, count: int | None = None, *, torn: bool = False) -> Generator[Line, None, None]:
    """Give each line of a log. Raises ``UnusableLog`` for the first that is no event, or not the next one.

    ``count``: give no more than so many. ``torn``: the last one may be cut, as a kernel that was killed may leave it,
    and is left out.
    """
    kernel, seq = "", 0
    with contextlib.closing(texts(path)) as all_texts:
        for seq, (where, text) in enumerate(itertools.islice(all_texts, count), 1):
            if torn and not text.endswith(b"\n") and len(text) <= LINE_MAX and next(all_texts, None) is None:
                return
            entry = _read(where, text)
            kernel = kernel or entry.id[-8:]
            _check_place(where, seq, entry, kernel)
            yield Line(text, entry)
    if not seq:
        raise UnusableLog(f"{path}: expected a recorded log, got an empty file")


def _read(where: str, text: bytes) -> Entry:
    if len(text) > LINE_MAX:
        raise UnusableLog(f"{where}: expected at most {LINE_MAX} bytes in a line, got more")
    if not text.endswith(b"\n"):
        raise UnusableLog(f"{where}: expected a whole line: it is cut")
    try:
        text.isascii() or text.decode()  # of `data` and `error` the decoder does not look at it
        return _decode(text)
    except (ValueError, RecursionError) as error:
        shown = text[:_SHOWN].decode(errors="replace").strip()
        raise UnusableLog(f"{where}: expected an event (protocol, section 7), got {shown!r}: {error}") from None


def _check_place(where: str, seq: int, entry: Entry, kernel: str) -> None:
    if seq > 1 and entry.event == "kernel:start":
        raise UnusableLog(
            f"{where}: expected one run in the log, got the start of another one: record each run to a file of its own"
        )
    if entry.id[-8:] != kernel:
        raise UnusableLog(f"{where}: expected an event of kernel {kernel}, got one of {entry.id[-8:]}")
    if entry.seq != seq:
        raise UnusableLog(f"{where}: expected seq {seq}, got {entry.seq}: lines are missing or out of order")
    if seq == 1:
        _check_start(where, entry, kernel)


def _check_start(where: str, entry: Entry, kernel: str) -> None:
    if entry.event != "kernel:start" or entry.data is UNSET:
        raise UnusableLog(f"{where}: expected the kernel:start of a recording, got {entry.about()}")
    try:
        if "recording" not in entry.read():
            raise UnusableLog(f"{where}: expected a recording: this log was made without Kernel(recording=True)")
        told = read_start(entry.data).kernel
    except (TypeError, ValueError) as error:
        raise UnusableLog(f"{where}: expected the kernel:start of a recording: {error}") from None
    if told != kernel:
        raise UnusableLog(f"{where}: expected the kernel:start of kernel {kernel}, got that of {told}")


def check_whole(path: Path) -> int:
    """Read a log to its end, and count its events. Raises ``UnusableLog`` unless it is a whole recording."""
    ended, number = False, 0
    with contextlib.closing(lines(path)) as all_lines:
        for number, line in enumerate(all_lines, 1):
            if ended:
                raise UnusableLog(f"{path}: expected nothing after kernel:end, got seq {number}, {line.entry.about()}")
            ended = line.entry.event == "kernel:end"
    if not ended:
        raise UnusableLog(f"{path}: expected kernel:end as the last event: the log is cut, or the run goes on")
    return number


class Part(msgspec.Struct, frozen=True):
    """The beginning of a log, with which a run goes on."""

    kernel: str
    """The digits of its kernel."""
    count: int
    """Its events."""
    began: float
    """The time of its first event."""
    last: str
    """The highest id of a span or a session in it."""
    size: int
    """Its bytes in the last file."""
    found: int
    """The bytes of that file."""


def check_killed(path: Path) -> Part:
    """Read the log of a kernel that was killed. Raises ``UnusableLog`` unless it is a recording that has no end."""
    found, first, last, entry = _size_of(path), None, "", None
    with contextlib.closing(lines(path, torn=True)) as all_lines:
        for line in all_lines:
            entry = line.entry
            if entry.event == "kernel:end":
                raise UnusableLog(f"{path}: expected a run without end, got kernel:end: nothing is left to do")
            first = first or entry
            last = max(last, *(each for each in _ids_of(entry) if each.startswith(first.id[-8:])), "")
    if entry is None or first is None:  # an empty file is refused before
        raise UnusableLog(f"{path}: expected a recorded log, got part of a line")
    return Part(first.id[-8:], entry.seq or 0, first.ts, last, _whole_lines(path, found), found)


def _ids_of(entry: Entry) -> tuple[str, str]:
    return entry.span_id or "", (entry.session_id or "").removeprefix("ses_")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UnusableLog(f"{path}: cannot be read: {error.strerror}") from None


def _whole_lines(path: Path, end: int) -> int:
    """Count the bytes of a file without the part of a line at its end."""
    at = -1
    with path.open("rb") as file:
        while at < 0 < end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            end = begin
    return end + at + 1


def open_new(path: Path, mode: Literal["wb", "xb"]) -> IO[bytes]:
    """Open a file for a log. A new one is for nobody but its owner, as the kernel's own logs are."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def copy_part(path: Path, until: int, to: Path) -> None:
    """Copy the first events of a log, up to that number, to a new file. Raises ``UnusableLog`` if it has fewer.

    Raises ``BadRequest`` for a file that exists.
    """
    count = 0
    try:
        with open_new(to, "xb") as file, contextlib.closing(lines(path, until)) as some:
            for line in some:
                if line.entry.event == "kernel:end":
                    break
                count += 1
                file.write(line.text)
        if count == until:
            return
    except OSError as error:
        raise BadRequest(f"{to}: cannot be written: {error.strerror}") from None
    to.unlink()
    raise UnusableLog(f"{path}: expected an event before the end of the run, got seq {until}: the last one is {count}")


class Log:
    """A recorded log, read once from its beginning. What it was asked about lines to come is in memory meanwhile.

    Of these it keeps a bounded number. To look further ahead, it reads the log once more. ``count``: only so many of
    its events are there.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self._path = path
        self._count = count
        self._lines = lines(path, count)
        self._ahead: deque[Line] = deque()
        self._ahead_bytes = 0
        self._read = 0

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def __iter__(self) -> Iterator[Line]:
        while (line := self._pop() if self._ahead else self._next()) is not None:
            yield line

    def find(self, wanted: Callable[[Entry], bool]) -> Entry | None:
        """Look ahead for the first event that is wanted. ``None``: there is none."""
        known = next((line.entry for line in self._ahead if wanted(line.entry)), None)
        if known is not None:
            return known
        while len(self._ahead) < _AHEAD_LINES and self._ahead_bytes < _AHEAD_BYTES:
            line = self._next()
            if line is None:
                return None
            self._ahead.append(line)
            self._ahead_bytes += len(line.text)
            if wanted(line.entry):
                return line.entry
        with contextlib.closing(texts(self._path)) as rest:
            entries = (_read(where, text) for where, text in itertools.islice(rest, self._read, self._count))
            return next(filter(wanted, entries), None)

    def _pop(self) -> Line:
        line = self._ahead.popleft()
        self._ahead_bytes -= len(line.text)
        return line

    def _next(self) -> Line | None:
        self._read += 1
        return next(self._lines, None)
