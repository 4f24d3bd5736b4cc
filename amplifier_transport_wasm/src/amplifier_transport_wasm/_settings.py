"""What the kernel tells the host program before the module's own input: one object of JSON, after its size.

Owns its form. It goes through stdin: nobody sees it in a list of processes, and no variable of the environment can turn
the host program itself. Both sides import this, so it needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
from typing import Any, TypedDict

_DIGITS = 8


class Settings(TypedDict):
    """How one process runs its module."""

    module: str
    """The path of the file, with no link on the way to it."""
    args: list[str]
    env: dict[str, str]
    folders: list[tuple[str, str, bool]]
    """What is opened: the path here, the path for the module, and whether it may be written to."""
    memory_bytes: int | None
    charged: bool
    """Whether CPU time is reported."""
    report: int | str | None
    """The report: a descriptor that this process inherited, or on Windows a path; ``None`` if nothing is reported."""
    run: str
    """A folder that ends with the process; empty if there is none."""
    engine: str
    """The version of the engine."""
    cache: str
    """The folder of compiled code; empty if nothing is kept."""
    key: str
    """The key of the cache, in hexadecimal."""


def write_settings(settings: Settings) -> bytes:
    """Give what is sent first."""
    text = json.dumps(settings).encode()
    return b"%0*d" % (_DIGITS, len(text)) + text


def read_settings(fd: int) -> Settings:
    """Read what was sent first, and not one byte more. Raises ``EOFError`` if it breaks off."""
    settings: Settings = json.loads(_read(fd, int(_read(fd, _DIGITS))))
    return settings


def _read(fd: int, size: int) -> bytes:
    parts: list[Any] = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
