"""The mounts of one sandbox: which paths of the host are in it, which of them are writable, and in which order.

Owns bubblewrap's options for mounts. It does not know capabilities or commands.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Forbidden, Unreachable

from ._paths import PSEUDO_FOLDERS, is_pseudo, is_within, open_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ._paths import ResolvedPath

_REPLACED = PSEUDO_FOLDERS[:2]  # each sandbox mounts its own
_PSEUDO_TYPES = {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf"}
_PSEUDO_TYPES |= {
    "binfmt_misc",
    "mqueue",
    "pstore",
    "efivarfs",
    "configfs",
    "fusectl",
    "nsfs",
    "selinuxfs",
    "hugetlbfs",
}


@attrs.define
class MountTable:
    """The mounts of one launch. It opens file descriptors, and hands each over to ``keep``, which closes it later."""

    keep: Callable[[int], None]
    by_descriptor: bool
    """Whether bwrap mounts what a file descriptor refers to. If not, it opens the path again: it may lead elsewhere."""
    binds: dict[str, bool] = attrs.field(factory=dict)  # real path of the host: is it writable?
    _defaults: dict[str, list[str]] = attrs.field(factory=dict)  # path: options, unless a bind covers the path
    _overrides: dict[str, list[str]] = attrs.field(factory=dict)  # path: options of a mount that covers any bind
    _links: dict[str, str] = attrs.field(factory=dict)
    _system: set[str] = attrs.field(factory=set)  # binds that bwrap may open by path

    def bind_system(self, paths: Iterable[ResolvedPath]) -> None:
        """Bind paths of the system, read-only. bwrap opens them by path: only root could replace them."""
        for path in paths:
            self._links |= path.links
            if path.real not in self.binds:
                self.binds[path.real] = False
                self._system.add(path.real)

    def bind(self, path: ResolvedPath) -> None:
        """Bind a path read-only, with the links on the way to it."""
        self._links |= {link: target for link, target in path.links.items() if not is_pseudo(link)}
        self.binds.setdefault(path.real, False)

    def grant(self, real: str, mount_points: Mapping[str, str], *, writable: bool) -> None:
        """Bind a real path that was granted. Raises ``Forbidden`` for one that no isolated module may see."""
        if reason := why_forbidden(real, mount_points):
            raise Forbidden(f"{real}: {reason}")
        self.binds[real] = writable or self.binds.get(real, False)
        for path in sorted(
            path for path, kind in mount_points.items() if kind in _PSEUDO_TYPES and is_within(path, real)
        ):
            if not any(is_within(path, covered) for covered in (*_REPLACED, *self._overrides)):
                self.mask(path)

    def add_default(self, path: str, *options: str) -> None:
        """Make a file or folder at a path, unless a bind brings the host's own."""
        self._defaults[path] = [*options, path]

    def mount(self, path: str, *options: str) -> None:
        """Mount something at a path, over any bind there."""
        self._overrides[path] = [*options, path]

    def mask(self, path: str) -> None:
        """Cover a path of the host with something empty."""
        empty = ("--tmpfs", path, "--remount-ro") if os.path.isdir(path) else ("--ro-bind", "/dev/null")
        self.mount(path, *empty)

    def mount_tmpfs(self, path: str, size: int) -> None:
        """Mount memory to write to, of at most ``size`` bytes."""
        self.mount(path, "--size", str(size), "--tmpfs")

    def separate_binds(self) -> set[str]:
        """Return the real paths that need a bind of their own, as no other bind covers them."""
        return {path for path in self.binds if not self._is_covered(path)}

    def options(self) -> Iterator[str]:
        """Yield bwrap's options, each folder before what lies in it. Raises ``Unreachable`` for a missing path."""
        paths = self.separate_binds()
        links = {path: target for path, target in self._links.items() if not self._is_covered(path)}
        defaults = {
            path: words for path, words in self._defaults.items() if path not in paths and not self._is_covered(path)
        }
        for path in sorted({*paths, *links, *defaults, *self._overrides}, key=lambda path: path.split("/")):
            if path in paths:
                yield from self._bind_options(path)
            elif path in links:
                yield from ("--symlink", links[path], path)
            yield from defaults.get(path, ())
            yield from self._overrides.get(path, ())
        if not self.binds.get("/"):
            yield from ("--remount-ro", "/")

    def _is_covered(self, path: str) -> bool:
        """Tell whether the bind of a folder above brings this path, with the same rights, and no mount hides it."""
        writable, folder = self.binds.get(path, False), path
        while folder != "/" and folder not in self._overrides:
            folder = folder.rpartition("/")[0] or "/"
            above = None if folder in self._overrides else self.binds.get(folder)
            if above is not None and (above or not writable):
                return True
        return False

    def _bind_options(self, path: str) -> list[str]:
        option = "--bind" if self.binds[path] else "--ro-bind"
        if path in self._system:
            return [option, path, path]
        self.keep(fd := _open(path))
        return [f"{option}-fd", str(fd), path] if self.by_descriptor else [option, path, path]


def why_forbidden(real: str, mount_points: Mapping[str, str]) -> str:
    """Say why no isolated module may see a real path, whatever was granted; empty if it may."""
    if is_pseudo(real):
        return f"no isolated module sees the host's /{real.split('/')[1]}"
    place = real
    while place != "/" and place not in mount_points:
        place = place.rpartition("/")[0] or "/"
    kind = mount_points.get(place, "")
    return f"it lies in a file system of type {kind}" if kind in _PSEUDO_TYPES else ""


def _open(path: str) -> int:
    try:
        return open_path(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise LostPathError(f"{path} was replaced: a link or a file is on the way to it now", path) from None
        raise LostPathError(f"{path}: {error.strerror}; only a path that exists can be granted", path) from error


class LostPathError(Unreachable):
    """A real path that cannot be opened as it was found or granted."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


def find_mount_points() -> dict[str, str]:
    """Find where file systems are mounted on the host, with their types. Of several at one path the last is seen."""
    with open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file.read().split(b"\n") if line]
    return {os.fsdecode(_unescape(words[4])): os.fsdecode(words[words.index(b"-") + 1]) for words in lines}


def _unescape(path: bytes) -> bytes:
    """Put back the bytes that the system writes as octal numbers: space, tab, line feed, backslash, and no other."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), path)
