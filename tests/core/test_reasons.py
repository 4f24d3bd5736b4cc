"""Notes are made of foreign text: they stay short, on their lines and cheap, whatever it is."""

import sys
import time

import pytest

from amplifier_core import Internal, ModuleDescriptor, Timeout, Unreachable
from amplifier_core._events.warnings import Warnings
from amplifier_core._modules.module import Module, as_connection
from amplifier_core._modules.reasons import explain
from amplifier_core.hookspecs import Connection, Isolation, why_not_started

DESCRIPTOR = ModuleDescriptor.from_mapping(
    {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "any"}}
)


class Silent(Connection):
    local = True
    unenforced = ()

    async def start(self, granted, confinement):
        """It is never started."""

    async def request(self, method, params, chunks=None):
        """It is never asked."""

    async def close(self):
        """There is nothing to close."""


class Told(Silent):
    def clues(self):
        return {"noise": {"count": 1, "first": "hello"}}


class Nothing(Isolation):
    name = "nothing"
    confines = ()

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return ()

    def plan(self, launch, descriptor):
        raise NotImplementedError


def notes(error, connection=None, isolation=None):
    module = Module("/mnt/tools/m", DESCRIPTOR, as_connection(connection or Silent()), isolation, trusted=False)
    explain(error, module, "invoke x")
    return getattr(error, "__notes__", [])


def test_of_stderr_the_last_lines_are_shown_each_cut_and_printable():
    text = "\n".join([*map(str, range(100)), "x" * 1000, "\x1b[2J\u202eend"])
    [note] = notes(Unreachable("gone", details={"stderr": text}))
    first, *lines, last = note.splitlines()
    assert first == "its stderr, since the request was sent:"
    assert lines[0] == "  82"
    assert len(lines) == 19
    assert lines[-1] == f"  {'x' * 199}…"
    assert last == "  \\x1b[2J\\u202eend"


@pytest.mark.parametrize(
    "details",
    [
        {"stderr": 5, "noise": "none", "line": None, "command": "text", "unended": [], "body": {}},
        {"noise": {"count": None}},
        {"noise": {"first": 5}},
        {},
    ],
)
def test_details_of_any_type_make_no_trouble(details):
    assert all(isinstance(note, str) for note in notes(Internal("odd", details=details)))


def test_a_timeout_of_a_transport_that_tells_nothing_of_one_request_has_its_clues():
    error = Timeout("/mnt/tools/m: no answer within 1 s")
    assert notes(error, Told()) == [
        "its stdout had a line that is no reply; the first: hello",
        "hint: stdout is the protocol's: print to stderr",
    ]
    assert error.details == {"phase": "module", "noise": {"count": 1, "first": "hello"}}


def test_the_page_of_a_failed_response_is_shown():
    error = Internal("http://host answered HTTP 500 with HTML, not JSON", details={"body": "<h1>no\nluck</h1>"})
    assert notes(error) == ["the body of its response: <h1>no\\nluck</h1>"]


def test_a_package_that_this_very_python_lacks_has_no_hint(monkeypatch):
    folder, _, name = sys.executable.rpartition("/")
    monkeypatch.setenv("PATH", folder)
    details = {"command": [name], "stderr": "ModuleNotFoundError: No module named 'none_such'"}
    assert not [note for note in notes(Unreachable("gone", details=details)) if note.startswith("hint: ")]


def test_a_timeout_that_waited_for_something_else_has_no_clues():
    assert notes(Timeout("late", details={"phase": "policy"}), Told()) == []


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("sh: cannot create /data/x: Read-only file system", ["hint: not granted fs:write:/data/x, and isolated"]),
        ("EROFS: read-only file system, open '/data/x'", ["hint: not granted fs:write:/data/x, and isolated"]),
        ("Read-only file system", []),
        ("ENOENT: no such file or directory, open '/data/x'", ["hint: not granted fs:read:/data/x, and isolated"]),
        ("ENOENT: no such file or directory, open '/usr/x'", []),
        ("connect EACCES 192.0.2.1:80", ["hint: not granted net:connect:*, and isolated: there is no network"]),
        (
            "Error: Cannot find module 'lodash'",
            ["hint: isolated: where lodash is installed has to be granted, as fs:read:FOLDER"],
        ),
        ("os.environ\nKeyError: 'not a variable'", []),
        ("KeyError: 'HOME'", []),
    ],
)
def test_hints_of_what_was_not_granted(text, hints):
    assert notes(Unreachable("gone", details={"stderr": text}), isolation=Nothing())[1:] == hints


@pytest.mark.parametrize(
    "unit",
    ["a", "connect ", "_socket.socket.", "'", "No module named '", "KeyError: '", "Read-only file system ", "\n", "{"],
)
def test_no_text_takes_long_to_search(unit):
    """A regular expression may take the square of a text's length."""
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    notes(Unreachable("gone", details={"stderr": text, "line": text, "noise": {"first": text}}), isolation=Nothing())
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"", ""),
        (b"\x7fELF\0", ""),
        (b"#! /bin/sh -e\n", ""),
        (b"#!there", ""),
        (b"#!/bin/env python3\r\n", "its #! line ends with a carriage return: save the file with line feeds alone"),
        (b"#!/bin/env -S python3\r\n", "its interpreter /bin/env is not there; its #! line names it"),
        (b"#!\t \n", "its #! line names no interpreter"),
        (b"#!gone\targument\n", "its interpreter gone is not there; its #! line names it"),
    ],
)
def test_what_is_wrong_with_a_first_line(head, why):
    assert why_not_started(head, lambda name: name in ("/bin/sh", "there")) == why


def test_warnings_come_at_powers_of_ten_and_of_a_bounded_number_of_names(caplog):
    warn = Warnings()
    for _ in range(1000):
        warn("one", "text\n")
    assert caplog.messages == ["text\\n", *(f"text\\n (time {count})" for count in (10, 100, 1000))]
    caplog.clear()
    for n in range(2000):
        warn(str(n), "x" * 5000)
    assert len(caplog.messages) == 1023
    assert {len(message) for message in caplog.messages} == {1000}
