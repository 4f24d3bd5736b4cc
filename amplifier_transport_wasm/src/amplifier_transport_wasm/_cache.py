"""Where compiled code is kept, and the key that it is sealed with.

Owns the two folders. Whoever can write into the cache and does not know the key can make the host compile again, and
nothing else: compiled code that is not sealed is never looked at, and no link below the user's folder is followed. So
the key is kept apart, in the user's state folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

import attrs
from platformdirs import user_cache_path, user_state_path

if TYPE_CHECKING:
    from pathlib import Path

_KEY_BYTES = 32
_POSIX = os.name == "posix"
_put_new = os.link if _POSIX else os.rename  # each fails where the name is taken


@attrs.frozen
class Cache:
    """A folder of compiled code, with its key in hexadecimal. Without a key nothing is kept, as ``problem`` says."""

    folder: str = ""
    key: str = attrs.field(default="", repr=False)
    problem: str = ""


def find_cache() -> Cache:
    """Find the user's cache, and make it if there is none. It reads and writes files. Never raises."""
    try:
        folder = _own_folder(user_cache_path(), user_cache_path("amplifier"))
        place = _own_folder(user_state_path(), user_state_path("amplifier")) / "cache.key"
        if not place.exists():
            _write_key(place)
        _check_private(place, 0o077)
        key = place.read_bytes()
    except OSError as error:
        return Cache(problem=f"compiled code is not kept: {error}")
    if len(key) != _KEY_BYTES:
        return Cache(problem=f"compiled code is not kept: {place} has {len(key)} bytes, and not {_KEY_BYTES}")
    return Cache(str(folder), key.hex())


def _own_folder(base: Path, own: Path) -> Path:
    """Make a folder in ``own``, which is below ``base``. There may be links of the user's on the way to that alone."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = base.resolve()
    for part in (*own.relative_to(base).parts, "wasm"):
        folder /= part
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder, 0)
    _check_private(folder, 0o022)
    return folder


def _write_key(place: Path) -> None:
    """Write a new key, whole or not at all. If two write at once, the first one counts, for both."""
    part = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a mode
            file.write(secrets.token_bytes(_KEY_BYTES))
        _put_new(part, place)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        part.replace(place)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _check_private(path: Path, others: int) -> None:
    """Refuse what belongs to somebody else, or gives others these rights. On Windows a user's folders are his own."""
    if not _POSIX:
        return
    found = path.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & others or stat.S_ISLNK(found.st_mode):
        raise PermissionError(f"{path} is not the user's own")
