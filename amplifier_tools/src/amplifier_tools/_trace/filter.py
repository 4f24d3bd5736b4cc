"""The filter of the commands: which entries of a log are looked at.

Owns the options ``--session``, ``--module`` and ``--status``, and what they mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import click

from amplifier_tools._entry import Entry

__all__ = ["Wanted", "filtered"]

Wanted = Callable[[Entry], bool]

_OPTIONS = (
    click.option(
        "--session", help="Only what happened in this session; the beginning of its id is enough.", metavar="ID"
    ),
    click.option("--module", help="Only this module: its path or its name; * stands for any text.", metavar="PATTERN"),
    click.option("--status", type=click.Choice(["ok", "error"]), help="Only what ended so."),
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options, and call it with ``wanted``: the filter, or ``None`` if all entries are wanted."""

    @functools.wraps(command)
    def call(*args: Any, session: str | None, module: str | None, status: str | None, **options: Any) -> None:
        command(*args, wanted=_wanted(session, module, status), **options)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def _wanted(session: str | None, module: str | None, status: str | None) -> Wanted | None:
    """Make the filter of the entries. ``None``: all are wanted."""
    if session is None and module is None and status is None:
        return None

    def wanted(entry: Entry) -> bool:
        return (
            (session is None or entry.session.startswith((session, f"ses_{session}")))
            and (module is None or fnmatchcase(entry.module, module) or fnmatchcase(entry.module, f"*/{module}"))
            and (status is None or (entry.failed == (status == "error") and not entry.begins_span))
        )

    return wanted
