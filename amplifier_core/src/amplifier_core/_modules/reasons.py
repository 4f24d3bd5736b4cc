"""Reasons: the notes of an error, which say why a module failed, and what to do where that is sure.

Owns their words. They are made of the error's ``details``, so that all transports' errors get the same ones, and at the
door where an error leaves the kernel: errors are made anew for each caller, and notes would not come along. What a
module wrote is foreign text: lines and characters of it are bounded, and a terminal obeys none of them.
"""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.capability import reach
from amplifier_core._protocol.errors import KernelError, Timeout, printable
from amplifier_core._protocol.json import NotJson, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .module import Module

MOUNT = "the mount"
"""What was asked of a module that was started for it: all that it has said is about that."""

_LINES = 20  # of stderr; `details` have more
_WIDTH = 200  # characters of a line
_TEXT_MAX = 16 * 1024  # characters
_QUOTED = 3  # parts of a text with something in quotes
_WHOLE_NETWORK = {"net:connect:*", "net:listen:*"}
_READ_ONLY = re.compile(r"[Rr]ead-only file system")
_NO_NETWORK = re.compile(
    r"ENETUNREACH|EAI_AGAIN|ENOTFOUND|[Nn]etwork is unreachable|[Nn]ame resolution|Name or service not known"
    r"|(?:socket|connect)\b[^\n]{0,100}(?:EACCES|Permission denied)"
    r"|_socket\.socket\.[^\n]{0,100}\n[^\n]{0,200}\n?PermissionError"
)
_NO_FILE = re.compile(r"(?:No such file or directory: |no such file or directory, \w+ |can't open file )'(/[^'\n]*)'")
_NO_VARIABLE = re.compile(r"^KeyError: '([A-Z_][A-Z0-9_]*)'", re.MULTILINE)
_NO_PACKAGE = re.compile(r"No module named '([^'\n]+)'|Cannot find (?:module|package) '([^'\n]+)'")
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/proc/", "/sys/", "/dev/")
_LONE = r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
_HINTS_OF_LINES = (
    (
        re.compile(rf"\{{.*(?:{_LONE})"),
        "a lone surrogate is no text: in Python os.fsencode(name).decode(errors='replace') for any name of a file",
    ),
    (re.compile(r".*\0", re.DOTALL), "write stdout in UTF-8: this looks like UTF-16"),
    (re.compile("\ufeff"), "write no byte order mark"),
    (re.compile(r'[{\[]*$(?<!^)|"'), "one object a line: write each message without line breaks"),
    (re.compile(r"\{'"), "write JSON, with double quotes: in Python json.dumps(message), not str(message)"),
    (re.compile(r"[^{]"), "stdout is the protocol's: print to stderr"),
)
_OF_SILENCE = "it wrote nothing: a module whose output is not flushed, or which reads stdin to its end, looks like this"
_OF_SILENCE_LATER = "it wrote nothing since the request was sent: it is still at work, or its reply is not flushed"
_OF_A_REPLY = ("ok", "pending", "chunk", "result")


def explain(error: KernelError, module: Module, what: str) -> None:
    """Add to an error what a person needs to know. ``what`` was asked of the module."""
    if isinstance(error, Timeout) and not error.replied:
        phase = error.details.setdefault("phase", "module")
        if phase == "module" and error.details.keys() <= {"phase", "given_up"}:  # nothing of this request alone is told
            error.details |= module.clues()
    if given_up := _text(error.details.get("given_up")):
        error.add_note(given_up)
    if error.replied:
        if type(error) is not KernelError:  # the code may be the kernel's as well
            error.add_note(f"{module.path} replied with this to {_line(what)}")
        notes = _hints_of_text(error.message[-_WIDTH * _LINES :], module)
    else:
        notes = _notes(error, module, "" if what == MOUNT else ", since the request was sent")
    for note in notes:
        error.add_note(note)


def _notes(error: KernelError, module: Module, since: str) -> Iterator[str]:
    """Give what is known, then what to do. ``since`` says of when its stderr is."""
    details = error.details
    command = _words(details.get("command"))
    if command and f"command {command[0]}:" not in error.message:
        yield f"command: {' '.join(map(_line, command))}"
    if line := _text(details.get("line")):
        yield f"the line: {_line(line)}"
    noise = details.get("noise")
    if isinstance(noise, dict):
        lines = "a line that is" if noise.get("count") == 1 else f"{noise.get('count')} lines that are"
        yield f"its stdout had {lines} no reply; the first: {_line(_text(noise.get('first')))}"
    if body := _text(details.get("body")):
        yield f"the body of its response: {_line(body)}"
    if unended := _text(details.get("unended")):
        yield f"its stdout has a line that has not ended: {_line(unended)}"
    for name, when in (("stderr", since), ("earlier_stderr", ", before the request was sent")):
        if text := _text(details.get(name)):
            yield "\n".join([f"its stderr{when}:", *map(_indented, text.splitlines()[-_LINES:])])
    if (count := details.get("in_flight")) is not None:
        yield f"{count} requests were in flight: any of them may be the cause"
    if details.get("phase") == "module" and command and not _said_anything(details):
        yield _OF_SILENCE_LATER if since else _OF_SILENCE
    yield from (f"hint: {hint}" for hint in dict.fromkeys(_hints(details, module)))


def _said_anything(details: Mapping[str, Any]) -> bool:
    return any(details.get(name) for name in ("noise", "unended", "stderr"))


def _hints(details: Mapping[str, Any], module: Module) -> Iterator[str]:
    """Say what to do, where a rule is sure."""
    noise = details.get("noise")
    for text in (details.get("line"), noise.get("first") if isinstance(noise, dict) else None):
        if hint := _hint_of_line(_text(text)):
            yield hint
    if details.get("exit_code") == 0 and not _said_anything(details):
        yield "it ended by itself: a module answers one line after the other until the end of stdin"
    if details.get("unended"):
        yield "end each message with a line feed, and flush it"
    text = _text(details.get("stderr")) or _text(details.get("earlier_stderr"))
    yield from (hint.removeprefix("hint: ") for hint in _hints_of_text(text, module))
    yield from _hints_of_python(text, _words(details.get("command")), module)


def _hint_of_line(line: str) -> str:
    """Say what is wrong with a line of stdout that is no message, if that is sure."""
    line = line.strip()
    hints = (hint for begins, hint in _HINTS_OF_LINES if begins.match(line))
    return next(hints, "") or _hint_of_object(line)


def _hint_of_object(line: str) -> str:
    try:
        message = decode(line)
    except NotJson:
        return ""
    if isinstance(message, dict) and any(name in message for name in _OF_A_REPLY) and not _is_id(message.get("id")):
        return "each reply has the id of its request, as it came: a text"
    return ""


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"r\d+", value) is not None


def _hints_of_text(text: str, module: Module) -> Iterator[str]:
    """Say what a module lacks, as far as it says so itself: what was not granted is not there."""
    granted = reach(module.granted)
    missing = _NO_VARIABLE.findall(text) if module.connection.local and "environ" in text else ()
    for name in [name for name in missing if f"env:{name}" not in module.granted][:1]:
        yield f"hint: not granted env:{_line(name)}: a module sees no other variable of the host"
    if module.isolation is None:
        return
    if (path := _read_only_path(text)) and not granted.covers(f"fs:write:{path}"):
        yield f"hint: not granted fs:write:{_line(path)}, and isolated"
    shown = (*_SYSTEM, f"{module.descriptor.base}/")
    absent = (path for path in _NO_FILE.findall(text) if not path.startswith(shown))
    if path := next((path for path in absent if not granted.covers(f"fs:read:{path}")), ""):
        yield f"hint: not granted fs:read:{_line(path)}, and isolated"
    if _NO_NETWORK.search(text) and not granted.words & _WHOLE_NETWORK:
        hosts = [word.removeprefix("net:connect:") for word in module.granted if word.startswith("net:connect:")]
        there = f"nothing is there but {_line(', '.join(hosts))}" if hosts else "there is no network"
        yield f"hint: not granted net:connect:*, and isolated: {there}"
    if found := _NO_PACKAGE.search(text):
        name = _line(found[1] or found[2])
        yield f"hint: isolated: where {name} is installed has to be granted, as fs:read:FOLDER"


def _read_only_path(text: str) -> str:
    """Find what could not be written: Python and Node name it after the reason, and in quotes, others before it."""
    found = _READ_ONLY.search(text)
    if found is None:
        return ""
    before, after = text[: found.start()].rpartition("\n")[2], text[found.end() :].partition("\n")[0]
    quoted = after.split("'")
    return quoted[1] if len(quoted) >= _QUOTED else (before.rstrip(": ").split() or [""])[-1]


def _hints_of_python(text: str, command: list[str], module: Module) -> Iterator[str]:
    """Say that a `python3` of PATH is not the Python of this program."""
    found = _NO_PACKAGE.search(text)
    if not found or not found[1] or not command or not re.fullmatch(r"python[\d.]*", command[0]):
        return
    ran = shutil.which(command[0]) if module.descriptor.caller is None else None  # a module may be told the error
    if ran and ran != sys.executable:
        yield (
            f"{command[0]} was {ran}, and this program's Python is {sys.executable}: "
            f"name in the command the one that has {_line(found[1])}"
        )


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Give the end of a text: it may be of any length, and is searched."""
    return value[-_TEXT_MAX:] if isinstance(value, str) else ""


def _indented(line: str) -> str:
    return f"  {_line(line)}"


def _line(text: str) -> str:
    """Show foreign text on a line of a bounded length."""
    text = text.rstrip()
    return printable(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
