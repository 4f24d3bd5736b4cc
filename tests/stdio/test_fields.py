import os
import re
import sys
from pathlib import Path

import attrs
import pytest

from amplifier_core import BadRequest, ModuleDescriptor
from amplifier_transport_stdio._fields import read_fields

HERE = str(Path(__file__).parent)


def describe(tmp_path, *, caller=None, **transport):
    fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", **transport}}
    return attrs.evolve(ModuleDescriptor.from_mapping(fields, base=tmp_path, source="m.json"), caller=caller)


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ({}, "$.transport.command: expected a list of text that is not empty, got nothing"),
        ({"command": []}, "$.transport.command: expected a list of text that is not empty, got []"),
        ({"command": "echo"}, "$.transport.command: expected a list of text that is not empty, got 'echo'"),
        ({"command": [5]}, "$.transport.command[0]: expected text, got 5"),
        ({"command": [""]}, "$.transport.command[0]: expected text, got ''"),
        ({"command": ["a", None]}, "$.transport.command[1]: expected text, got nothing"),
        ({"command": ["a", "b\0c"]}, r"$.transport.command[1]: expected text, got 'b\x00c'"),
        ({"command": ["a"], "cwd": 5}, "$.transport.cwd: expected a path, got 5"),
        ({"command": ["a"], "env": []}, "$.transport.env: expected an object of text without NUL"),
        ({"command": ["a"], "env": {"A": 1}}, "$.transport.env: expected an object of text without NUL"),
        ({"command": ["a"], "instance": "each"}, "$.transport.instance: expected 'shared', got 'each'"),
        ({"command": ["a"], "comand": []}, "$.transport.comand: expected one of type, command, cwd, env, instance"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_with_its_path(tmp_path, transport, fault):
    with pytest.raises(BadRequest) as caught:
        read_fields(describe(tmp_path, **transport))
    assert caught.value.message == f"m.json: {fault}"


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ({"command": ["a"] * 1025}, "$.transport.command: expected at most 1024 texts, got 1025"),
        ({"command": ["a" * (1 << 20), "b"]}, "expected at most 1048576 characters with env, got 1048577"),
        (
            {"command": ["a"], "env": {"B": "c" * (1 << 20)}},
            "expected at most 1048576 characters with env, got 1048578",
        ),
        ({"command": ["a"], "env": {str(n): "" for n in range(1025)}}, "expected at most 1024 variables, got 1025"),
        ({"command": ["a"], "cwd": "b" * 4097}, "$.transport.cwd: expected a path, got 'bbb"),
        ({"command": "a" * 10**6}, "got 'aaa"),
        ({"command": ["a"], "b" * 10**6: ""}, "expected one of type, command"),
        ({"command": ["a"], "instance": ["b"] * 10**6}, "expected 'shared', got ['b', "),
    ],
)
def test_what_is_too_much_is_refused_in_a_short_line(tmp_path, transport, fault):
    with pytest.raises(BadRequest) as caught:
        read_fields(describe(tmp_path, **transport))
    assert fault in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ({"command": ["./tool"]}, "$.transport.command[0]: expected a name or an absolute path, as a module wrote"),
        (
            {"command": ["../../bin/sh"]},
            "$.transport.command[0]: expected a name or an absolute path, as a module wrote",
        ),
        ({"command": ["sh"], "cwd": "below"}, "$.transport.cwd: expected an absolute path, as a module wrote"),
    ],
)
def test_a_relative_path_of_a_module_is_refused(tmp_path, transport, fault):
    """It would lie below the kernel's own working directory, of which a module should know nothing."""
    with pytest.raises(BadRequest, match=re.escape(fault)):
        read_fields(describe(tmp_path, caller="/mnt/agents/a", **transport))


def test_what_a_module_mounts_works_in_the_root_folder_unless_it_says_otherwise(tmp_path):
    assert read_fields(describe(tmp_path, caller="/mnt/agents/a", command=["sh"])).cwd == tmp_path.anchor
    fields = read_fields(describe(tmp_path, caller="/mnt/agents/a", command=[sys.executable], cwd=str(tmp_path)))
    assert (fields.command, fields.cwd) == ((sys.executable,), str(tmp_path))


@pytest.mark.parametrize(
    ("program", "expected"),
    [("node", "node"), ("./tool.sh", f"{{base}}{os.sep}tool.sh"), (sys.executable, sys.executable)],
)
def test_a_name_is_looked_up_on_path_and_a_path_is_below_the_descriptor(tmp_path, program, expected):
    fields = read_fields(describe(tmp_path, command=[program, "arg"]))
    assert fields.command == (expected.format(base=tmp_path), "arg")


@pytest.mark.parametrize(("cwd", "expected"), [(None, "{base}"), ("sub", f"{{base}}{os.sep}sub"), (HERE, HERE)])
def test_the_working_folder_is_the_descriptors_unless_it_says_otherwise(tmp_path, cwd, expected):
    more = {"cwd": cwd} if cwd else {}
    assert read_fields(describe(tmp_path, command=["a"], **more)).cwd == expected.format(base=tmp_path)


def test_the_environment_is_constructed(tmp_path, monkeypatch):
    monkeypatch.setenv("GRANTED", "1")
    monkeypatch.setenv("SECRET", "2")
    fields = read_fields(describe(tmp_path, command=["a"], env={"SET": "3"}))
    launch = fields.launch(["env:GRANTED", "env:MISSING", "fs:read:/"])
    assert launch.env == {"PATH": os.environ["PATH"], "GRANTED": "1", "SET": "3"}
