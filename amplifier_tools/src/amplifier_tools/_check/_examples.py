"""The option ``--op NAME=JSON[=CODE]``: a call that the author of a module allows, and what it answers.

Owns its syntax.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from amplifier_core.hookspecs import NotJson, decode
from amplifier_core.testing import Example

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_examples"]

_CODE = re.compile(r"\s*=\s*([^\s=]{1,64})\s*\Z")


def read_examples(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[Example]:
    """Read all values of the option. Raises ``BadParameter`` with one line."""
    return [_read(value) for value in values]


def _read(value: str) -> Example:
    """Read the name of an op, an object of args, and the code of an error that it answers with."""
    name, found, text = value.partition("=")
    if not name or not found:
        raise click.BadParameter(f"{value!r}: expected NAME=JSON or NAME=JSON=CODE")
    text = text.lstrip()
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
        args = decode(text[:end].encode())
    except (NotJson, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{name}: expected JSON: {error}") from None
    if not isinstance(args, dict):
        raise click.BadParameter(f"{name}: expected an object of args, got {type(args).__name__}")
    code = _CODE.match(text, end)
    if text[end:].strip() and not code:
        raise click.BadParameter(f"{name}: expected =CODE, or nothing, after the JSON, got {text[end:]!r}")
    return Example(name, args, code[1] if code else None)
