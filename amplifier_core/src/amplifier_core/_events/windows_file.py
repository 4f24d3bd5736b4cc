"""A file that is only appended to, on Windows: how it is opened, and locked for a moment.

Owns the calls of Windows, by ctypes. The C library's ``O_APPEND`` seeks and then writes, so that of two processes one
would overwrite the other; and a file that it has opened cannot be renamed.
"""

from __future__ import annotations

import contextlib
import ctypes
import msvcrt
import os
import sys
from ctypes import wintypes
from typing import TYPE_CHECKING, Any

assert sys.platform == "win32"  # noqa: S101 - for the type checker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READ, _APPEND = 0x80000000, 0x4  # GENERIC_READ, which a lock needs, and FILE_APPEND_DATA without FILE_WRITE_DATA
_SHARE_ALL = 0x7  # to read, to write, to rename
_OPEN_ALWAYS = 4
_ORDINARY = 0x80  # FILE_ATTRIBUTE_NORMAL
_AT_ONCE, _EXCLUSIVE = 0x1, 0x2  # LOCKFILE_FAIL_IMMEDIATELY, LOCKFILE_EXCLUSIVE_LOCK
_PLACE = 1 << 62  # of the byte that is locked: beyond any file, since nobody could read or write a locked one
_TAKEN = (33, 997)  # ERROR_LOCK_VIOLATION, ERROR_IO_PENDING


class _Overlapped(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_size_t * 2), ("place", ctypes.c_uint64), ("event", wintypes.HANDLE))


def open_to_append(path: Path) -> int:
    """Open a file, or make one with the rights of its folder. Each ``write`` goes to its end as a whole."""
    if "\0" in str(path):
        raise ValueError("embedded null character")  # or ctypes would open what is before it
    handle = _kernel.CreateFileW(str(path), _READ | _APPEND, _SHARE_ALL, None, _OPEN_ALWAYS, _ORDINARY, None)
    if handle in {None, wintypes.HANDLE(-1).value}:
        error = ctypes.WinError(ctypes.get_last_error())
        error.filename = str(path)
        raise error
    return msvcrt.open_osfhandle(handle, os.O_APPEND | os.O_BINARY | os.O_NOINHERIT)


@contextlib.contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold a lock that every kernel asks for. Raises ``BlockingIOError`` if somebody else holds it."""
    handle, place = msvcrt.get_osfhandle(fd), _Overlapped(place=_PLACE)
    if not _kernel.LockFileEx(handle, _AT_ONCE | _EXCLUSIVE, 0, 1, 0, ctypes.byref(place)):
        error = ctypes.WinError(ctypes.get_last_error())
        raise BlockingIOError(*error.args) if error.winerror in _TAKEN else error
    try:
        yield
    finally:  # it fails if the file was rotated: its lock is gone with its handle
        _kernel.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place))


_HANDLE, _DWORD, _BOOL, _ANY = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, ctypes.c_void_p
_CALLS: dict[str, tuple[Any, ...]] = {  # what each returns, and takes: a handle would else be cut to 32 bits
    "CreateFileW": (_HANDLE, wintypes.LPCWSTR, _DWORD, _DWORD, _ANY, _DWORD, _DWORD, _HANDLE),
    "LockFileEx": (_BOOL, _HANDLE, _DWORD, _DWORD, _DWORD, _DWORD, _ANY),
    "UnlockFileEx": (_BOOL, _HANDLE, _DWORD, _DWORD, _DWORD, _ANY),
}
_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
for _name, (_returned, *_taken) in _CALLS.items():
    _call = getattr(_kernel, _name)
    _call.restype, _call.argtypes = _returned, _taken
