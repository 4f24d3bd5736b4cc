"""Compiled code, kept from one start to the next. What was changed on the disk is never run: each entry is sealed.

Owns the entries: their names, their seals and their number. To take compiled code from a file is to run it, so it is
looked at only after its seal, in the bytes that were read. A module may write where the folder is: what was put in its
place since is neither written to nor cleaned up.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import platform
import re
from typing import Any

import wasmtime

from ._file import READ, as_file, open_folder

_SEAL = 32  # bytes
_ENTRY_MAX = 512 << 20  # bytes
_ENTRIES_MAX = 256
_ALL_MAX = 1 << 30  # bytes
_FORMAT = "1"
_ENTRY = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{16})?\Z")  # or what is left of one that was being written


class Compiled:
    """The cache in a folder, with its key. An empty folder keeps nothing. ``kind``: of the engine, and its settings."""

    def __init__(self, folder: str, key: bytes, kind: str) -> None:
        self._folder = folder if key else ""
        self._key = key
        self._kind = f"{_FORMAT} {platform.machine()} {kind}"

    def load(self, engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
        """Give a module: as it was compiled before, or compiled now. Raises ``WasmtimeError``."""
        with contextlib.ExitStack() as opened:
            if not self._folder or not self._enter(opened):
                return wasmtime.Module(engine, code)
            return self._load(engine, code)

    def _enter(self, opened: contextlib.ExitStack) -> bool:
        """Go to the folder, if it is there and no link leads elsewhere: names are looked for there until it is left."""
        with contextlib.suppress(OSError):
            opened.enter_context(open_folder(self._folder))
            return True
        return False

    def _load(self, engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
        place = self._name(code)
        compiled = self._read(place)
        if compiled is not None:
            with contextlib.suppress(wasmtime.WasmtimeError):  # it was for another processor
                return wasmtime.Module.deserialize(engine, compiled)
        module = wasmtime.Module(engine, code)
        with contextlib.suppress(OSError):
            self._write(place, bytes(module.serialize()))
            self._prune()
        return module

    def _name(self, code: bytes) -> str:
        return hmac.new(self._key, b"%b\0%b" % (self._kind.encode(), code), "sha256").hexdigest()

    def _seal(self, place: str, compiled: bytes) -> bytes:
        """Seal an entry under its name, so that none can take the place of another one."""
        return hmac.digest(self._key, place.encode() + compiled, "sha256")

    def _read(self, place: str) -> bytes | None:
        """Give what an entry has, if it is whole and sealed."""
        flags = READ | getattr(os, "O_NOFOLLOW", 0)
        with contextlib.suppress(OSError, ValueError), as_file(os.open(place, flags), _ENTRY_MAX) as file:
            seal, compiled = file.read(_SEAL), file.read(_ENTRY_MAX)
            if hmac.compare_digest(seal, self._seal(place, compiled)):
                return compiled
        return None

    def _write(self, place: str, compiled: bytes) -> None:
        """Write an entry, whole or not at all."""
        part = f"{place}.{os.urandom(8).hex()}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(self._seal(place, compiled) + compiled)
            os.replace(part, place)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def _prune(self) -> None:
        """Remove the oldest entries where there are too many, or they are too large together."""
        entries: list[tuple[float, int, Any]] = []
        for each in filter(_ENTRY.match, os.listdir(".")):
            with contextlib.suppress(OSError):
                found = os.lstat(each)
                entries.append((found.st_mtime, found.st_size, each))
        size = 0
        for n, (_, each_size, path) in enumerate(sorted(entries, reverse=True)):
            size += each_size
            if n >= _ENTRIES_MAX or size > _ALL_MAX:
                with contextlib.suppress(OSError):
                    os.unlink(path)
