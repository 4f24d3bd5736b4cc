"""What a module sees of the host's files: which paths appear, writable or not, and in which order they are mounted.

Owns the arrangement. It knows bubblewrap's options for mounts, and nothing of capabilities or commands.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Forbidden, Unreachable

from ._paths import OWN, is_pseudo, is_within, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_REPLACED = OWN[:2]

SCRATCH = "/tmp"  # noqa: S108 - the module's own

_FOREIGN = frozenset(
    [
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "debugfs",
        "tracefs",
        "securityfs",
        "bpf",
        "binfmt_misc",
        "mqueue",
        "pstore",
        "efivarfs",
        "configfs",
        "fusectl",
        "nsfs",
        "selinuxfs",
    ]
)  # file systems that are doors to the kernel or to other processes, wherever they are mounted


@attrs.define
class MountTable:
    """The files of one launch. ``keep`` takes each descriptor that is opened, until whoever starts it closes it."""

    keep: Callable[[int], None]
    by_descriptor: bool
    """Whether bwrap mounts what a descriptor holds. Otherwise it opens a path again, which may lead elsewhere then."""
    shown: dict[str, bool] = attrs.field(factory=dict)  # real path: writable?
    _fixed: dict[str, list[str]] = attrs.field(factory=dict)  # place: its options; what is shown hides it
    _own: dict[str, list[str]] = attrs.field(factory=dict)  # the same, and it hides what is shown
    _links: dict[str, str] = attrs.field(factory=dict)
    _trusted: set[str] = attrs.field(factory=set)

    @staticmethod
    def system(paths: Iterable[str]) -> tuple[dict[str, str], dict[str, bool]]:
        """Look up those of the system's paths that are there, once for many views: who could change them owns all."""
        trails = [resolve(path) for path in paths if os.path.exists(path)]
        links = {link: target for trail in trails for link, target in trail.links.items()}
        return links, {trail.real: False for trail in trails}

    def show_system(self, found: tuple[dict[str, str], dict[str, bool]]) -> None:
        """Show what was found; it is mounted by its path."""
        self._links |= found[0]
        self._trusted |= found[1].keys() - self.shown.keys()
        self.shown = found[1] | self.shown

    def show(self, path: str) -> str:
        """Let a path, with the links on the way, be read. Returns the real path."""
        trail = resolve(path)
        self._links |= {link: target for link, target in trail.links.items() if not is_pseudo(link)}
        self.shown.setdefault(trail.real, False)
        return trail.real

    def grant(self, real: str, *, writable: bool) -> None:
        """Open a real path as it was granted. Raises ``Forbidden`` for what no isolated module may see."""
        mounts = _mounts()
        if why := _closed(real, mounts):
            raise Forbidden(f"{real}: {why}")
        self.shown[real] = writable or self.shown.get(real, False)
        doors = sorted(place for place, kind in mounts if kind in _FOREIGN and is_within(place, real))
        for place in doors:
            if not any(is_within(place, hidden) for hidden in (*_REPLACED, *self._own)):
                self.hide(place)

    def put(self, place: str, *options: str) -> None:
        """Have something at a place, unless the host's own was granted there."""
        self._fixed[place] = [*options, place]

    def mount(self, place: str, *options: str) -> None:
        """Have something mounted at a place, over whatever is shown there."""
        self._own[place] = [*options, place]

    def hide(self, place: str) -> None:
        """Have nothing at a place where the host has something."""
        empty = ("--tmpfs", place, "--remount-ro") if os.path.isdir(place) else ("--ro-bind", "/dev/null")
        self.mount(place, *empty)

    def scratch(self, place: str, size: int) -> None:
        """Give the module memory to write to, as a folder."""
        self.mount(place, "--size", str(size), "--tmpfs")

    def opened(self) -> set[str]:
        """Give the real paths that are shown for themselves, not within another one."""
        return {path for path in self.shown if not self._brought(path)}

    def options(self) -> Iterator[str]:
        """Give bwrap's options, what is above before what is below. Raises ``Unreachable`` for what is not there."""
        paths = self.opened()
        links = {link: target for link, target in self._links.items() if not self._brought(link)}
        fixed = {
            place: words for place, words in self._fixed.items() if place not in paths and not self._brought(place)
        }
        for place in sorted({*paths, *links, *fixed, *self._own}, key=lambda path: path.split("/")):
            if place in paths:
                yield from self._bind(place)
            elif place in links:
                yield from ("--symlink", links[place], place)
            yield from fixed.get(place, ())
            yield from self._own.get(place, ())
        if not self.shown.get("/"):
            yield from ("--remount-ro", "/")

    def _brought(self, path: str) -> bool:
        """Tell whether a folder that is shown brings this path along, with no less, and nothing hides it there."""
        writable, folder = self.shown.get(path, False), path
        while folder != "/" and folder not in self._own:
            folder = folder.rpartition("/")[0] or "/"
            wide = None if folder in self._own else self.shown.get(folder)
            if wide is not None and (wide or not writable):
                return True
        return False

    def _bind(self, path: str) -> list[str]:
        name = "--bind" if self.shown[path] else "--ro-bind"
        if path in self._trusted:
            return [name, path, path]
        fd = _open(path)
        self.keep(fd)
        now = os.readlink(f"/proc/self/fd/{fd}")
        if now != path:
            raise Unreachable(f"{path}: it leads to {now} now")
        return [f"{name}-fd", str(fd), path] if self.by_descriptor else [name, path, path]


def closed(real: str) -> str:
    """Say why a real path cannot be opened to an isolated module, whatever was granted; empty if it can."""
    return _closed(real, _mounts())


def _closed(real: str, mounts: list[tuple[str, str]]) -> str:
    if is_pseudo(real):
        return f"no isolated module sees the host's /{real.split('/')[1]}"
    kind = max(((len(place), kind) for place, kind in mounts if is_within(real, place)), default=(0, ""))[1]
    return f"it lies in a file system of type {kind}" if kind in _FOREIGN else ""


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH)
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}; a module can be given only what is there") from error


def _mounts() -> list[tuple[str, str]]:
    """List where file systems are mounted on the host, and of which type."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    return [(_unescaped(words[4]), words[words.index("-") + 1]) for words in lines]


def _unescaped(path: str) -> str:
    return path.encode("latin-1", "surrogateescape").decode("unicode_escape") if "\\" in path else path
