import json
import math
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.core.strategies import json_values, thorough

from amplifier_core import BadRequest, Limits, ModuleDescriptor, Plan, load_descriptor
from amplifier_core._protocol.descriptor import KINDS
from amplifier_core._protocol.weight import MESSAGE_BYTES

VALID: dict[str, Any] = {"name": "a", "kind": "tool", "transport": {"type": "stdio"}, "capabilities": []}
LIMITS = ("timeout_ms", "idle_ms", "memory_bytes", "cpu_ms", "message_bytes", "concurrency")

NAME = "expected a name like [a-z0-9][a-z0-9._-]{0,63}"
KIND = f"expected one of {', '.join(KINDS)}"
TRANSPORT = "expected an object whose type is text"
WORDS = "expected a list of text"
VERSION = "expected a semantic version like 1.2.0"
COUNT = "expected a positive integer"

WRONG: dict[tuple[str, str], list[Any]] = {
    ("name", NAME): [5, None, True, [], {}, "", "A", "-a", ".a", "a b", "a/b", "a" * 65, "a\n", "ä", "a\0", ["a"]],
    ("kind", KIND): [5, None, True, "", "tools", "Tool", "tool ", ["tool"], {"tool": 1}],
    ("transport", TRANSPORT): [
        *(None, "stdio", 5, True, [], ["stdio"], {}, {"command": []}),
        *({"type": None}, {"type": 5}, {"type": True}, {"type": ["stdio"]}, {"type": {}}),
    ],
    ("capabilities", WORDS): [
        *(None, "net:connect:*", 5, True, {}, {"env:A": 1}, [5], [None], [True], [["env:A"]], ["env:A", {}]),
    ],
    ("capabilities[0]", "expected one of fs:read:PATH"): [[""], ["gpu:use"]],
    ("capabilities[1]", "expected a path"): [["env:A", "fs:read:"]],
    ("capabilities[2]", "expected env:NAME"): [["env:A", "env:B", "env:"]],
    ("capabilities[0]", "expected net:connect:* or net:connect:HOST:PORT"): [["net:connect:host"]],
    ("capabilities[0]", "expected a port from 1 to 65535"): [["net:connect:host:99999"]],
    ("capabilities[0]", "expected net:listen:*"): [["net:listen:80"]],
    ("capabilities[0]", "expected sys:NAME[:PATTERN]"): [["sys:nothing"]],
    ("capabilities[0]", "expected a path inside $tmp"): [["fs:read:$tmp/../.."]],
    ("version", VERSION): [1, 1.2, True, [], {}, "", "1", "1.2", "v1.2.3", "1.2.3.4", "1.2.3\n"],
    ("limits", "expected an object"): [5, True, [], "5", [["timeout_ms", 5]]],
    **{(f"limits.{name}", COUNT): [{name: 0}, {name: True}, {"idle_ms": 1, name: "5"}] for name in LIMITS},
    ("limits.cpu_ms", COUNT): [{"cpu_ms": value} for value in (0, True, "5", -1, 1.5, 1.0, 1e3, [], [5], {}, "")],
}
FIELDS = [(path, value, expected) for (path, expected), values in WRONG.items() for value in values]

TEXTS = {  # of whole files
    "nothing": (b"", "expected JSON"),
    "spaces": (b" \n", "expected JSON"),
    "a list": (b"[]", "expected an object, got list"),
    "a number": (b"5", "expected an object, got int"),
    "null": (b"null", "expected an object, got NoneType"),
    "true": (b"true", "expected an object, got bool"),
    "text": (b'"{}"', "expected an object, got str"),
    "pairs": (b'[["name","a"]]', "expected an object, got list"),
    "truncated": (b'{"name":"a"', "expected JSON"),
    "trailing garbage": (b"{} x", "expected JSON: Extra data"),
    "two objects": (b"{}{}", "expected JSON: Extra data"),
    "a trailing comma": (b'{"name":"a",}', "expected JSON"),
    "single quotes": (b"{'name':'a'}", "expected JSON"),
    "a comment": (b"{} // x", "expected JSON"),
    "YAML": (b"name: a\nkind: tool\n", "expected JSON"),
    "a raw control character": (b'{"name":"a\x01"}', "expected JSON"),
    "a NUL": (b'{"name":"a"}\0', "expected JSON"),
    "NaN": (b'{"limits":{"cpu_ms":NaN}}', "expected JSON: NaN is not JSON"),
    "Infinity": (b'{"x":[Infinity]}', "expected JSON: Infinity is not JSON"),
    "-Infinity": (b'{"x":-Infinity}', "expected JSON: -Infinity is not JSON"),
    "a number out of range": (b'{"x":1e999}', "expected JSON: 1e999 is out of range"),
    "a negative number out of range": (b'{"x":[-1E+999]}', "expected JSON: -1E+999 is out of range"),
    "an integer of 5000 digits": (b'{"x":' + b"9" * 5000 + b"}", "expected JSON: Exceeds the limit"),
    "a key twice": (b'{"name":"a","name":"b"}', "expected JSON: the key 'name' appears twice"),
    "a key twice below": (b'{"transport":{"a":{"b":1,"b":1}}}', "expected JSON: the key 'b' appears twice"),
    "a key twice, escaped": (b'{"n\\u000a":1,"n\\n":2}', "expected JSON: the key 'n\\n' appears twice"),
    "UTF-16": (json.dumps(VALID).encode("utf-16"), "expected UTF-8, got invalid start byte at byte 0"),
    "UTF-16 without a mark": (json.dumps(VALID).encode("utf-16-le"), "expected JSON"),
    "UTF-32": (json.dumps(VALID).encode("utf-32"), "expected UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "expected JSON: Unexpected UTF-8 BOM"),
    "Latin 1": ('{"x":"é"}'.encode("latin-1"), "expected UTF-8, got invalid continuation byte at byte 6"),
    "an encoded surrogate": (b'{"x":"\xed\xa0\x80"}', "expected UTF-8"),
    "a lone surrogate": (b'{"x":["\\ud800"]}', "expected Unicode text, got a lone surrogate"),
    "a lone surrogate in a key": (b'{"x":{"\\udfff":1}}', "expected Unicode text, got a lone surrogate"),
    "deep arrays": (
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "expected JSON: nested more than 200 levels deep",
    ),
    "deep objects": (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, "expected JSON: nested more than 200 levels deep"),
    "deep and not ended": (b"[" * 100_000, "expected JSON: nested more than 200 levels deep"),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "module.json"


def fault_of(file):
    """Load a wrong file, and return the text of its error after the file's name."""
    with pytest.raises(BadRequest) as caught:
        load_descriptor(file)
    message = caught.value.message
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: "), caught.value.details


@pytest.mark.parametrize("separator", ["\n", "\u2028", "\x1c", "\x85"])
def test_a_key_that_is_no_line_of_text_is_shown_in_one(file, separator):
    key = f"no{separator}key"
    file.write_text(json.dumps({**VALID, "transport": {"type": "stdio", key: 5}}))
    with pytest.raises(BadRequest) as caught:
        raise load_descriptor(file).misfit(f".{key}", "expected nothing")
    assert caught.value.message == f"{file}: {f'$.transport.{key}'!r}: expected nothing"
    assert caught.value.details == {"path": f"$.transport.{key}"}
    for read in (ModuleDescriptor.from_mapping, lambda fields: ModuleDescriptor(**fields)):
        with pytest.raises(BadRequest) as caught:
            read({**VALID, "transport": {"type": "stdio", key: math.nan}})
        assert f"{f'$.transport.{key}'!r}: expected a finite number" in caught.value.message
        assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "value", "expected"), FIELDS, ids=[f"{path}={json.dumps(value)[:40]}" for path, value, _ in FIELDS]
)
def test_a_field_that_does_not_fit_is_one_line(file, path, value, expected):
    field = path.partition(".")[0].partition("[")[0]
    file.write_text(json.dumps({**VALID, field: value}))
    message, details = fault_of(file)
    assert message.startswith(f"$.{path}: {expected}")
    assert details == {"path": f"$.{path}"}


@pytest.mark.parametrize("field", VALID)
def test_a_field_that_is_missing_is_one_line(file, field):
    file.write_text(json.dumps({name: value for name, value in VALID.items() if name != field}))
    message, details = fault_of(file)
    assert message == f"$.{field}: expected a value, got nothing"
    assert details == {"path": f"$.{field}"}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_a_file_that_is_no_object_is_one_line(file, text, expected):
    file.write_bytes(text)
    message, _ = fault_of(file)
    assert message.startswith(f"$: {expected}")


def test_of_many_faults_one_is_reported(file):
    file.write_text(json.dumps({"name": "A", "kind": 5, "transport": [], "limits": {"cpu_ms": 0, "idle_ms": 0}}))
    assert fault_of(file)[0].count("expected") == 1


def test_a_long_value_is_cut_off(file):
    file.write_text(json.dumps({**VALID, "kind": "x" * 1_000_000}))
    message, _ = fault_of(file)
    assert message.startswith(f"$.kind: {KIND}, got 'xxx")
    assert len(message) < 200


def reason_of(file):
    """Load a file that cannot be read, and return the error, one line that names it."""
    with pytest.raises(BadRequest) as caught:
        load_descriptor(file)
    message = caught.value.message
    assert len(message.splitlines()) == 1
    assert str(file)[:40] in message
    assert "cannot be read: " in message
    return message


def test_a_missing_file_is_one_line(file):
    assert "No such file" in reason_of(file)


def test_a_folder_is_one_line(tmp_path):
    assert "irectory" in reason_of(tmp_path)


def test_a_path_through_a_file_is_one_line(file):
    file.write_text("{}")
    assert "Not a directory" in reason_of(file / "module.json")


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    assert "too long" in reason_of(tmp_path / ("x" * 5000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(file):
    os.mkfifo(file)
    assert "cannot be read: expected a regular file" in reason_of(file)


def test_a_file_of_more_than_a_megabyte_is_no_descriptor(file):
    file.write_text(json.dumps(VALID) + " " * (1 << 20))
    assert "cannot be read: expected at most 1048576 bytes" in reason_of(file)


def test_a_file_that_may_not_be_read_is_one_line(file):
    file.write_text("{}")
    file.chmod(0)
    if os.access(file, os.R_OK):  # we are root, or permissions mean nothing here
        file = Path("/proc/self/mem")  # its beginning is not readable
    reason_of(file)


@pytest.mark.parametrize("path", ["a\0b", "\ud800.json", 5, None], ids=ascii)
def test_a_value_that_is_no_path_is_refused(path):
    with pytest.raises(BadRequest) as caught:
        load_descriptor(path)
    assert len(caught.value.message.splitlines()) == 1


def all_depths():
    """Draw depths around every limit that an interpreter might have."""
    limit = sys.getrecursionlimit()
    return [*range(150, 250, 10), *range(limit - 100, limit, 2), *range(limit, 30 * limit, limit)]


def test_nesting_that_is_nearly_too_deep_has_a_path_too(file):
    for depth in all_depths():
        file.write_text(json.dumps({**VALID, "name": 0}).replace("0", "[" * depth + "]" * depth, 1))
        message, _ = fault_of(file)
        assert message.startswith(("$.name: expected a name", "$: expected JSON: nested more than 200")), depth


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("field", ["name", "kind", "transport", "capabilities", "version", "limits"])
def test_a_mapping_with_a_value_nested_too_deeply_is_one_line_with_its_path(field):
    with pytest.raises(BadRequest, match=rf"^bad_request: descriptor: \$\.{field}: expected"):
        ModuleDescriptor.from_mapping({**VALID, field: nested(100_000)})


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no\nrepr")


def test_a_value_that_can_not_be_printed_is_one_line_with_its_path():
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor.from_mapping({**VALID, "name": Unprintable()})
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.message.startswith("descriptor: $.name: expected a name")


class Odd(Mapping):
    """A mapping that has keys and raises for each of them."""

    def __getitem__(self, name):
        raise ValueError("not\ntoday")

    def __iter__(self):
        return iter(LIMITS)

    def __len__(self):
        return len(LIMITS)


def test_a_mapping_that_raises_is_one_line_with_its_path():
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor.from_mapping({**VALID, "limits": Odd()})
    assert caught.value.message.startswith("descriptor: $.limits")
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_no_machine_can_count_is_refused(file, name):
    file.write_text(json.dumps({**VALID, "limits": {name: 10**400}}))
    assert fault_of(file)[0].startswith(f"$.limits.{name}: expected a positive integer")


@pytest.mark.parametrize(
    "version", ["\u0661.\u0662.\u0663", "01.2.3", "1.2.3-", "1.2.3-a..b", "1.2.3-01", "1.2.3+"], ids=ascii
)
def test_a_version_is_semantic(version):
    with pytest.raises(BadRequest, match=VERSION):
        ModuleDescriptor.from_mapping({**VALID, "version": version})


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"a": float("nan")}, "$.transport.a: expected a finite number, got nan"),
        ({"a": [{"b": {1}}]}, "$.transport.a[0].b: expected JSON, got set"),
        ({"a": "\ud800"}, "$.transport.a: expected Unicode text, got a lone surrogate"),
        ({5: 1}, "$.transport: expected text as a key, got int"),
        ({"a": b"x"}, "$.transport.a: expected JSON, got bytes"),
    ],
)
def test_a_transport_that_is_not_json_is_one_line_with_its_path(fields, fault):
    mapping = {**VALID, "transport": {"type": "x", **fields}}
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor.from_mapping(mapping)
    assert caught.value.message == f"descriptor: {fault}"
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor(**mapping)
    assert caught.value.message == f"descriptor: {fault}"


def test_the_path_of_a_key_with_a_colon_is_whole():
    with pytest.raises(
        BadRequest, match=r"^bad_request: descriptor: \$\.transport\.a: b: expected JSON, got set$"
    ) as caught:
        ModuleDescriptor.from_mapping({**VALID, "transport": {"type": "x", "a: b": {1}}})
    assert caught.value.details == {"path": "$.transport.a: b"}


# --- what fits


def test_a_descriptor_is_read_from_its_file(file):
    file.write_text(
        json.dumps(
            {
                "name": "wordcount",
                "kind": "tool",
                "version": "1.2.0",
                "transport": {"type": "stdio", "command": ["node", "wordcount.mjs"], "ünknown": [1.5, None]},
                "capabilities": ["fs:read:./corpus", "env:A", "fs:read:corpus"],
                "limits": {"timeout_ms": 30000, "memory_bytes": 2**53 - 1},
                "x-more": {"kept": True},
                "base": 5,
                "source": [],
                "unknown": 1,
            }
        )
    )
    descriptor = load_descriptor(file)
    folder = file.parent.resolve()
    assert descriptor == ModuleDescriptor(
        name="wordcount",
        kind="tool",
        version="1.2.0",
        transport={"type": "stdio", "command": ["node", "wordcount.mjs"], "ünknown": [1.5, None]},
        capabilities=(f"fs:read:{folder}/corpus", "env:A"),
        limits=Limits(timeout_ms=30000, memory_bytes=2**53 - 1),
    )
    assert descriptor.unknown == {"x-more": {"kept": True}, "base": 5, "source": [], "unknown": 1}
    assert (descriptor.base, descriptor.source) == (folder, str(file))


def test_a_path_may_be_text(file):
    file.write_text(json.dumps(VALID))
    assert load_descriptor(str(file)) == load_descriptor(file)


def test_paths_are_relative_to_the_real_file(file, tmp_path):
    file.write_text(json.dumps({**VALID, "capabilities": ["fs:read:data"]}))
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.json"
    link.symlink_to(file)
    assert load_descriptor(link).capabilities == (f"fs:read:{tmp_path.resolve()}/data",)


def test_paths_of_a_mapping_are_relative_to_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for made in (
        ModuleDescriptor.from_mapping({**VALID, "capabilities": ["fs:read:x"]}),
        ModuleDescriptor(name="a", kind="tool", transport={"type": "stdio"}, capabilities=("fs:read:x",)),
    ):
        assert made.capabilities == (f"fs:read:{tmp_path.resolve()}/x",)
        assert made.source == "descriptor"


def test_any_mapping_is_read():
    mapping = MappingProxyType({**VALID, "transport": MappingProxyType({"type": "stdio"}), "capabilities": ("env:A",)})
    assert ModuleDescriptor.from_mapping(mapping).capabilities == ("env:A",)


def test_null_reads_as_absent_in_what_is_optional():
    fields = {"name": "a", "kind": "tool", "capabilities": []}
    told = {**fields, "transport": {"type": "stdio", "command": ["a"]}}
    nulls = {"type": "stdio", "command": ["a"], "cwd": None, "env": None, "instance": None}
    more = {"version": None, "limits": None, "transport": nulls}
    assert ModuleDescriptor.from_mapping({**told, **more}) == ModuleDescriptor.from_mapping(told)
    limits = {"limits": {"timeout_ms": None, "concurrency": 1}}
    assert ModuleDescriptor.from_mapping({**told, **limits}).limits == Limits(concurrency=1)


@pytest.mark.parametrize("mapping", [None, "x", [], 5, ModuleDescriptor])
def test_a_value_that_is_no_mapping_is_refused(mapping):
    with pytest.raises(BadRequest, match=r"^bad_request: mine: \$: expected an object, got "):
        ModuleDescriptor.from_mapping(mapping, source="mine")


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 64])
def test_a_name_that_fits_is_kept(name):
    assert ModuleDescriptor.from_mapping({**VALID, "name": name}).name == name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_known(kind):
    assert ModuleDescriptor.from_mapping({**VALID, "kind": kind}).kind == kind


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3", "10.20.30-rc.1+build.5", "1.0.0-x-y.0", "1.0.0+01"])
def test_a_version_that_fits_is_kept(version):
    assert ModuleDescriptor.from_mapping({**VALID, "version": version}).version == version


def test_limits_that_are_not_set_are_none():
    assert ModuleDescriptor.from_mapping({**VALID, "limits": {}}).limits == Limits()
    assert all(getattr(Limits(), name) is None for name in LIMITS)


def test_unknown_limits_are_ignored_and_kept_as_unknown():
    descriptor = ModuleDescriptor.from_mapping({**VALID, "limits": {"gpu_ms": "x", "cpu_ms": 5}})
    assert descriptor.limits == Limits(cpu_ms=5)
    assert descriptor.unknown == {"limits.gpu_ms": "x"}


@pytest.mark.parametrize("value", [ModuleDescriptor.from_mapping(VALID), Limits(), Plan("x")], ids=type)
def test_an_object_that_holds_objects_is_not_hashable(value):
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)


def test_the_largest_message_has_a_default():
    assert ModuleDescriptor.from_mapping(VALID).message_bytes == MESSAGE_BYTES
    assert ModuleDescriptor.from_mapping({**VALID, "limits": {"message_bytes": 7}}).message_bytes == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "descriptor: $.name: expected a name like [a-z0-9][a-z0-9._-]{0,63}, got 5"),
        ({"capabilities": "env:A"}, "descriptor: $.capabilities: expected a list of text, got 'env:A'"),
        ({"capabilities": ["env:"]}, "descriptor: $.capabilities[0]: expected env:NAME, got 'env:'"),
        ({"limits": {"cpu_ms": 5}}, "descriptor: $.limits: expected limits, got {'cpu_ms': 5}"),
    ],
)
def test_making_one_checks_it(change, message):
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor(**{**VALID, **change})
    assert caught.value.message == message


def test_a_transport_names_its_wrong_field():
    descriptor = ModuleDescriptor.from_mapping(VALID, source="m.json")
    error = descriptor.misfit(".command[0]", "expected text")
    assert error.message == "m.json: $.transport.command[0]: expected text"
    assert error.details == {"path": "$.transport.command[0]"}


valid = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
        "kind": st.sampled_from(KINDS),
        "transport": st.dictionaries(st.text(), json_values, max_size=3).map(lambda more: {**more, "type": "x"}),
        "capabilities": st.lists(
            st.sampled_from(["env:A", "net:connect:*", "fs:read:/a", "$"]).map(str), max_size=3
        ).map(lambda words: [word.replace("$", "fs:write:$tmp") for word in words]),
    },
    optional={
        "version": st.sampled_from(["1.2.3", "0.0.0-rc.1"]),
        "limits": st.dictionaries(st.sampled_from(LIMITS), st.integers(1, 2**53 - 1)),
    },
)
known = (*VALID, "version", "limits")
others = st.dictionaries(st.text().filter(lambda name: name not in known), json_values, max_size=3)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    return tmp_path_factory.mktemp("descriptors") / "module.json"


@thorough
@given(valid, others)
def test_valid_fields_are_read_as_they_are_and_unknown_ones_are_kept(one_file, fields, more):
    one_file.write_text(json.dumps({**more, **fields}))
    descriptor = load_descriptor(one_file)
    assert descriptor.unknown == more
    assert descriptor.capabilities == tuple(dict.fromkeys(fields["capabilities"]))
    assert (descriptor.name, descriptor.kind) == (fields["name"], fields["kind"])
    told = {name: value for name, value in fields["transport"].items() if value is not None}
    assert descriptor.transport == told
    assert descriptor.version == fields.get("version")
    assert descriptor.limits == Limits(**fields.get("limits", {}))
    again = ModuleDescriptor.from_mapping(
        {name: value for name, value in attrs.asdict(descriptor, recurse=False).items() if name in VALID}
        | {name: fields[name] for name in ("version", "limits") if name in fields}
    )
    assert again == descriptor == attrs.evolve(descriptor)


def one_line_or_descriptor(file):
    try:
        assert isinstance(load_descriptor(file), ModuleDescriptor)
    except BadRequest as error:
        message = error.message
    else:
        return
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{file}: $")


@thorough
@given(
    st.one_of(
        json_values,
        st.tuples(valid, st.dictionaries(st.sampled_from(known), json_values)).map(lambda two: {**two[0], **two[1]}),
    )
)
@example({**VALID, "limits": {"cpu_ms": 10**400}})
def test_any_json_is_a_descriptor_or_one_line(one_file, value):
    one_file.write_text(json.dumps(value))
    one_line_or_descriptor(one_file)


def scrambled(text, seed):
    """Change, drop or double a few bytes."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice([b"", text[at : at + 9] * 2, bytes([chance.randrange(256)])]) + text[at + 1 :]
    return text


@thorough
@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]",:\\u d8nametool5e9\n', max_size=40).map(lambda text: text.encode())
    | st.builds(lambda value, seed: scrambled(json.dumps(value).encode(), seed), valid, st.integers(0, 2**32))
)
def test_any_bytes_are_a_descriptor_or_one_line(one_file, text):
    one_file.write_bytes(text)
    one_line_or_descriptor(one_file)


def descriptor_of(**fields):
    told = {"name": "m", "kind": "tool", "transport": {"type": "stdio"}, "capabilities": []}
    return {**told, **fields}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"capabilities": [f"env:A{n}" for n in range(257)]}, "$.capabilities: expected at most 256, got 257"),
        ({"capabilities": ["env:" + "A" * 4349]}, "$.capabilities[0]: expected at most 4352 characters"),
        ({"version": "1.0.0-" + "a" * 251}, "$.version: expected a semantic version like 1.2.0"),
    ],
)
def test_words_and_versions_have_a_size(fields, problem):
    with pytest.raises(BadRequest) as caught:
        ModuleDescriptor.from_mapping(descriptor_of(**fields))
    assert problem in caught.value.message


def test_a_descriptor_that_a_module_sent_looks_at_no_file(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    word = f"fs:read:{tmp_path}/link"
    sent = ModuleDescriptor.from_mapping(descriptor_of(capabilities=[word]), caller="/mnt/agents/a")
    assert (sent.capabilities, sent.spellings, sent.caller) == ((word,), (word,), "/mnt/agents/a")
    named = ModuleDescriptor.from_mapping(descriptor_of(capabilities=["fs:read:link"]), base=tmp_path)
    assert (named.capabilities, named.spellings) == (("fs:read:/etc",), ("fs:read:link", word))
    with pytest.raises(BadRequest, match=r"capabilities\[0\]: expected an absolute path, got 'link'"):
        ModuleDescriptor.from_mapping(descriptor_of(capabilities=["fs:read:link"]), caller="/mnt/agents/a")
