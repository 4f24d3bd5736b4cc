"""The folder of one process: its report and its scratch folder. It is gone when the process is.

Owns the folder. The host program removes it too, at an end of its own: then the kernel may have been killed. Whoever
may write temporary files can put links there: none is followed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ._report import Report, create_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_POSIX = os.name == "posix"
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class RunFolder:
    """A new folder that only this user can see, with a ``report`` if that is wanted, and folders below ``scratch``.

    Raises ``OSError``; then there is none.
    """

    def __init__(self, *, reports: bool, below: Iterable[str] = ()) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="amplifier-wasm-", dir=os.path.realpath(tempfile.gettempdir())))
        self.scratch: Path = self.path / "tmp"
        self.report: Report | None = None
        self._file = None
        try:
            for each in below:
                _make(self.path, ["tmp", *filter(None, each.split("/"))])
            if reports:
                self._file = create_file(self.path)
                self.report = Report(self._file.fileno())
        except BaseException:
            self.remove()
            raise

    def hand_over(self) -> int | str | None:
        """Give what a process opens the report by: a new descriptor that it has to inherit, or on Windows a path."""
        if self._file is None:
            return None
        name: object = self._file.name
        return name if isinstance(name, str) else os.dup(self._file.fileno())

    def remove(self) -> None:
        """Remove it with all that the module has left there. It takes long if that is much: call it in a thread."""
        if self.report is not None:
            self.report.close()
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(RecursionError):  # folders in folders, before Python 3.13
            shutil.rmtree(self.path, ignore_errors=True)


def _make(path: Path, parts: Sequence[str]) -> None:
    """Make folders below a path. On Windows nobody can make links but an administrator."""
    if not _POSIX:
        path.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        return
    at = os.open(path, _FOLDER)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=at)
            above, at = at, os.open(part, _FOLDER, dir_fd=at)
            os.close(above)
    finally:
        os.close(at)
