"""The sink ``sqlite``: every event is a row of the table ``events``, in a file that others may read meanwhile."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import BadRequest
from amplifier_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["open_sink"]

_COLUMNS = (
    "id", "ts", "event", "component", "seq", "module", "status", "duration_ms", "session_id", "request_id", "span_id",
)  # fmt: skip
_TABLE = f"CREATE TABLE IF NOT EXISTS events ({', '.join(_COLUMNS)}, envelope TEXT, PRIMARY KEY (id)) WITHOUT ROWID"
_INSERT = f"INSERT INTO events VALUES ({'?, ' * len(_COLUMNS)}?)"


@hookimpl
def open_sink(options: Mapping[str, Any]) -> SqliteSink:
    """Open the database ``path``, and make it if need be."""
    path = options.get("path")
    if len(options) > 1 or not isinstance(path, str | Path):
        raise BadRequest(f"sinks: sqlite: expected a path and nothing else, got {dict(options)!r}")
    try:
        return SqliteSink(path)
    except sqlite3.Error as error:
        raise BadRequest(f"sinks: sqlite: {path}: {error}") from error


class SqliteSink:
    """One database. Each row is a transaction of its own: a process that is killed has lost none."""

    def __init__(self, path: str | Path) -> None:
        self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            # With a write-ahead log, readers do not hold a writer up, and a row needs no fsync to outlive the process.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_TABLE)
        except sqlite3.Error:
            self._database.close()
            raise

    def write(self, line: bytes) -> None:
        """Insert one event."""
        envelope = json.loads(line)
        values = [envelope.get(column) for column in _COLUMNS]
        self._database.execute(_INSERT, (*values, line.decode().rstrip()))

    def close(self) -> None:
        """Close the database."""
        self._database.close()
