"""The arguments of the operation: JSON from the command line, from a file or from stdin.

Owns their reading, bounded and strict. The module judges what they say.
"""

from __future__ import annotations

from typing import IO, Any

import click

from amplifier_core.hookspecs import NotJson, decode

__all__ = ["read_arguments"]


def read_arguments(words: str | None, file: IO[bytes] | None, limit: int) -> dict[str, Any]:
    """Give the arguments: an object, empty if there are none. Raises ``UsageError``.

    ``limit`` is how many bytes the module takes.
    """
    if words is not None and file is not None:
        raise click.UsageError("JSON and --args-file: expected one of them")
    if file is None:
        where, text = "JSON", (words or "{}").encode(errors="surrogatepass")
    else:
        where, text = f"--args-file {file.name}", file.read(limit + 1)
    if len(text) > limit:
        raise click.UsageError(f"{where}: expected at most {limit} bytes (limits.message_bytes)")
    try:
        args = decode(text, limit)
    except NotJson as error:
        raise click.UsageError(f"{where}: expected JSON: {error}") from None
    if not isinstance(args, dict):
        raise click.UsageError(f"{where}: expected an object, got {type(args).__name__}")
    return args
