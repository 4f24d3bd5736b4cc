"""Programs that the operating system cannot start: what is wrong with the first line of a script.

Owns the words for it, which are the same with and without an isolation. It reads no file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = b"\xef\xbb\xbf"
_CARRIAGE_RETURN = "ends with a carriage return: save the file with line feeds alone"


def why_not_started(head: bytes, is_there: Callable[[str], bool]) -> str:
    """Say why a file that begins with ``head`` cannot be started. Empty: it can, or it is not known.

    ``is_there`` tells whether there is a program at the path of an interpreter, which may be relative.
    """
    if head.startswith((_MARK, b"#!")):
        return _fault_of_script(head.removeprefix(_MARK).partition(b"\n")[0], is_there, marked=head.startswith(_MARK))
    return "" if b"\0" in head or not head else "it has no #! line, and is no program"


def _fault_of_script(line: bytes, is_there: Callable[[str], bool], *, marked: bool) -> str:
    if marked:
        return "it begins with a byte order mark, before any #! line: save the file without"
    interpreter, _, argument = line[2:].strip(b" \t").replace(b"\t", b" ").partition(b" ")
    name = os.fsdecode(interpreter)
    if not name.strip():
        return "its #! line names no interpreter"
    if name.endswith("\r"):
        return f"its #! line, with the interpreter {name.rstrip()}, {_CARRIAGE_RETURN}"
    if name.rpartition("/")[2] == "env" and argument.endswith(b"\r") and not argument.lstrip().startswith(b"-"):
        return f"its #! line {_CARRIAGE_RETURN}"
    return "" if is_there(name) else f"its interpreter {name} is not there; its #! line names it"
