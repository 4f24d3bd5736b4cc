"""Files and folders of the host, opened by a path on which there is no link now, whoever may have made one meanwhile.

Owns the opening. Paths were real ones when they were granted; one that leads elsewhere since is refused.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

READ: int = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""To read what may be no file: nothing waits."""
_MODULE_MAX = 64 << 20  # bytes
_MAGIC = b"\0asm"
_CORE = b"\1\0\0\0"
_POSIX = os.name == "posix"
_NO_LINKS = getattr(os, "O_NOFOLLOW_ANY", 0)  # macOS: no link anywhere on the path
_PATH_ONLY = getattr(os, "O_PATH", 0)  # Linux: folders that may not be read are passed too


def read_module(path: str) -> bytes:
    """Read a WebAssembly module. Raises ``ValueError`` if it is too large, or none."""
    with as_file(_open_straight(path, READ), _MODULE_MAX) as file:
        code = file.read(_MODULE_MAX)
    if code[:4] != _MAGIC:
        raise ValueError("expected a WebAssembly module, which begins with \\0asm")
    if code[4:8] != _CORE:
        raise ValueError("expected a core module of WASI preview 1 (wasm32-wasip1); this may be a component")
    return code


def as_file(fd: int, most: int) -> BinaryIO:
    """Take what was opened as a file. Raises ``ValueError``, and closes it, for what is none or has more bytes."""
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size <= most:
        return os.fdopen(fd, "rb")
    os.close(fd)
    if stat.S_ISREG(found.st_mode):
        raise ValueError(f"expected at most {most} bytes, got {found.st_size}")
    raise ValueError("it is no file")


@contextmanager
def open_folder(path: str) -> Iterator[str]:
    """Open a folder, and give a name for it that leads there during the ``with`` block."""
    back = os.getcwd()
    if _POSIX:
        fd = _open_straight(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fchdir(fd)
        os.close(fd)
    else:
        os.chdir(path)  # nobody can replace it, nor what is above it, while it is in use
        _check_straight(path)
    try:
        yield "."
    finally:
        os.chdir(back)


def _open_straight(path: str, flags: int) -> int:
    """Open a path. Raises ``OSError`` if there is a link on the way, or at its end."""
    if _NO_LINKS:
        return os.open(path, flags | _NO_LINKS)
    if _PATH_ONLY:
        return _walk(path, flags)
    fd = os.open(path, flags)
    try:
        _check_straight(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _walk(path: str, flags: int) -> int:
    *folders, last = path.strip("/").split("/")
    at = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            above, at = at, os.open(folder, _PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(above)
        return os.open(last or ".", flags | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def _check_straight(path: str) -> None:
    if os.path.realpath(path).replace(os.sep, "/") != path.replace(os.sep, "/"):
        raise OSError(f"{path} leads elsewhere now")
