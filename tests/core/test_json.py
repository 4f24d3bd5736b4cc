import dataclasses
import enum
import json
import subprocess
import sys
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.core.strategies import json_values, thorough

from amplifier_core._protocol.json import NotJson, decode, encode, printable_json, scrub
from amplifier_core._protocol.weight import MAX_DEPTH


def nested(levels, value=None):
    """Wrap a value into so many lists."""
    for _ in range(levels):
        value = [value]
    return value


def exact(value):
    """Distinguish 1 from 1.0 and from true, which == does not."""
    return json.dumps(value)


@thorough
@given(json_values)
@example(2**64)
@example(-(2**64) - 1)
@example({"a": [2**200, 10**4299]})
@example(-0.0)
@example(5e-324)
@example(1.7976931348623157e308)
@example({"": {"": []}, "\0\u2028\U0001f600": "\x7f\x1f"})
def test_a_value_that_is_json_comes_back_unchanged(value):
    encoded = encode(value, "value")
    assert exact(decode(encoded)) == exact(value)
    assert exact(json.loads(encoded)) == exact(value)


@thorough
@given(json_values)
def test_encoded_json_is_one_line(value):
    assert b"\n" not in encode(value, "value")


def test_a_tuple_is_an_array():
    assert encode((1, (2.5, "x")), "value") == b'[1,[2.5,"x"]]'


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Items(list):
    pass


class Pair(NamedTuple):
    a: int


class Colour(enum.Enum):
    RED = "red"
    RANGE = (1, {"to": [None]})
    INFRARED = {1}  # noqa: RUF012
    NONE = float("nan")


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Data:
    a: int = 1


@attrs.define
class Attrs:
    a: int = 1


class Struct(msgspec.Struct):
    a: int = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UUID("12345678-1234-5678-1234-567812345678"), b'"12345678-1234-5678-1234-567812345678"'),
        (Colour.RED, b'"red"'),
        (Colour.RANGE, b'[1,{"to":[null]}]'),
        (Level.LOW, b"1"),
        (Word.YES, b'"yes"'),
    ],
)
@pytest.mark.parametrize("beside", [1, 2**70, None, 1.5], ids=str)
def test_an_id_is_its_text_and_a_member_of_an_enumeration_its_value(value, text, beside):
    assert encode(value, "args") == text
    assert encode({"a": [value, beside]}, "args") == b'{"a":[%b,%b]}' % (text, json.dumps(beside).encode())


FOREIGN = [
    (float("nan"), "expected a finite number, got nan"),
    (float("inf"), "expected a finite number, got inf"),
    (float("-inf"), "expected a finite number, got -inf"),
    ("\ud800", "expected Unicode text, got a lone surrogate"),
    ("tail \udfff", "expected Unicode text, got a lone surrogate"),
    (b"x", "expected JSON, got bytes"),
    (bytearray(b"x"), "expected JSON, got bytearray"),
    (memoryview(b"x"), "expected JSON, got memoryview"),
    ({1}, "expected JSON, got set"),
    (frozenset(), "expected JSON, got frozenset"),
    (range(2), "expected JSON, got range"),
    (iter([]), "expected JSON, got list_iterator"),
    (1j, "expected JSON, got complex"),
    (Decimal(1), "expected JSON, got Decimal"),
    (Fraction(1), "expected JSON, got Fraction"),
    (datetime(2026, 1, 1, tzinfo=UTC), "expected JSON, got datetime"),
    (date(2026, 1, 1), "expected JSON, got date"),
    (time(1), "expected JSON, got time"),
    (timedelta(1), "expected JSON, got timedelta"),
    (Path("x"), f"expected JSON, got {type(Path('x')).__name__}"),
    (Colour.INFRARED, "expected JSON, got set"),
    (Colour.NONE, "expected a finite number, got nan"),
    (Text("x"), "expected JSON, got Text"),
    (Number(1), "expected JSON, got Number"),
    (Items(), "expected JSON, got Items"),
    (Pair(1), "expected JSON, got Pair"),
    (OrderedDict(a=1), "expected JSON, got OrderedDict"),
    (defaultdict(int), "expected JSON, got defaultdict"),
    (MappingProxyType({}), "expected JSON, got mappingproxy"),
    (Data(), "expected JSON, got Data"),
    (Attrs(), "expected JSON, got Attrs"),
    (Struct(), "expected JSON, got Struct"),
    (msgspec.Raw(b"1"), "expected JSON, got Raw"),
    (object(), "expected JSON, got object"),
    (int, "expected JSON, got type"),
    ({1: 0}, "expected text as a key, got int"),
    ({1.5: 0}, "expected text as a key, got float"),
    ({None: 0}, "expected text as a key, got NoneType"),
    ({b"x": 0}, "expected text as a key, got bytes"),
    ({(): 0}, "expected text as a key, got tuple"),
    ({Text("x"): 0}, "expected text as a key, got Text"),
    ({Word.YES: 0}, "expected text as a key, got Word"),
]


@pytest.mark.parametrize(("value", "fault"), FOREIGN, ids=lambda item: ascii(item).partition(" at 0x")[0][:40])
def test_a_value_that_is_not_json_is_refused(value, fault):
    with pytest.raises(NotJson) as caught:
        encode(value, "args")
    assert str(caught.value) == f"args: {fault}"


# each is encoded in another way: few members, many, with what MessagePack is asked about, with what orjson cannot write
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "text": {f"t{n}": "null" for n in range(20)},
    "null": {"rows": [{"a": None, "b": 1.5}] * 40},
    "what looks like NaN": {"deletes": ["\x7f" * 2000, None]},
    "bits": {"rows": [{"a": 2**64}]},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize(("value", "fault"), FOREIGN, ids=lambda item: ascii(item).partition(" at 0x")[0][:40])
def test_the_same_is_refused_whatever_is_beside_it(value, fault, beside):
    for args, path in (({"x": value}, ".x"), ({"x": [{"y": value}]}, ".x[0].y"), ([[value]], "[0][0]")):
        with pytest.raises(NotJson) as caught:
            encode({**BESIDE[beside], "z": args}, "args")
        assert str(caught.value) == f"args.z{path}: {fault}"


@pytest.mark.parametrize("beside", BESIDE)
def test_what_is_json_is_written_whatever_is_beside_it(beside):
    value = {
        **BESIDE[beside],
        "tuple": (1, 2.5),
        "none": None,
        "text": "NaN null \u02ff\x7f",
        "far": [1.7e308, -1.7e308],
    }
    assert json.loads(encode(value, "args")) == json.loads(json.dumps(value))


@pytest.mark.parametrize("text", [b"[1,\n", b"1"])
@pytest.mark.parametrize("counted", [True, False])
def test_text_that_orjson_would_write_unseen_is_refused(text, counted, monkeypatch):
    if not counted:  # an orjson whose fragments do not hold their class
        monkeypatch.setattr("amplifier_core._protocol.json._COUNTED", False)
        monkeypatch.setattr("amplifier_core._protocol.json._WITHOUT_FRAGMENTS", 2**30)
    with pytest.raises(NotJson, match=r"^args\.a\[1\]: expected JSON, got Fragment$"):
        encode({"a": [1, orjson.Fragment(text)]}, "args")


@pytest.mark.parametrize(
    "value",
    [
        {"text": "null"},
        [1, {"a": [[]]}],
        {f"n{n}": n for n in range(40)},
        [{"a": None, "b": n / 3} for n in range(200)],
    ],
    ids=["flat", "nested", "wide", "rows"],
)
def test_python_looks_at_no_usual_value(value, monkeypatch):
    monkeypatch.setattr("amplifier_core._protocol.json._fault", lambda *_: pytest.fail("walked"))
    assert json.loads(encode(value, "args")) == value


@st.composite
def planted(draw):
    """Hide one foreign value in JSON, and say where."""
    value, fault = draw(st.sampled_from(FOREIGN))
    path = ""
    for _ in range(draw(st.integers(0, 5))):
        before = draw(st.lists(json_values, max_size=2))
        if draw(st.booleans()):
            value, path = [*before, value, *draw(st.lists(json_values, max_size=1))], f"[{len(before)}]{path}"
        else:
            key = draw(st.text())
            rest = dict(enumerate(before))
            value, path = {**{f"{key}{n}": other for n, other in rest.items()}, key: value}, f".{key}{path}"
    return value, f"{path}: {fault}"


@thorough
@given(planted())
def test_one_foreign_value_anywhere_is_found_and_its_path_named(case):
    value, fault = case
    with pytest.raises(NotJson) as caught:
        encode(value, "args")
    assert str(caught.value) == f"args{fault}"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"\ud800": 1}, "args: expected Unicode text as a key, got a lone surrogate"),
        ({"a": [{"\udfff": 1.5}]}, "args.a[0]: expected Unicode text as a key, got a lone surrogate"),
        ({"a": [1, {"b": {1}}]}, "args.a[1].b: expected JSON, got set"),
        ({"a": ({"b": 1}, {"c": (float("nan"),)})}, "args.a[1].c[0]: expected a finite number, got nan"),
        ({"a": {"b": {3: 1}}}, "args.a.b: expected text as a key, got int"),
    ],
)
def test_the_path_of_a_value_that_is_not_json_is_named(value, fault):
    with pytest.raises(NotJson) as caught:
        encode(value, "args")
    assert str(caught.value) == fault


def test_text_beyond_ascii_is_json_beside_a_foreign_value():
    with pytest.raises(NotJson, match=r"^args\.b: expected JSON, got set$"):
        encode({"ä": "ö", "b": {1}}, "args")


@pytest.mark.parametrize("value", [10**5000, [10**5000], {"a": -(10**5000)}], ids=["bare", "listed", "keyed"])
def test_an_integer_of_more_digits_than_python_prints_is_refused(value):
    with pytest.raises(NotJson, match=r"^args\S*: .*digits"):
        encode(value, "args")


def test_the_path_of_a_huge_integer_is_named():
    with pytest.raises(NotJson, match=r"^args\.a\[0\]: "):
        encode({"a": [10**5000]}, "args")


def test_the_deepest_nesting_allowed_is_written():
    assert encode(nested(MAX_DEPTH), "args") == b"[" * MAX_DEPTH + b"null" + b"]" * MAX_DEPTH


def test_one_level_more_is_refused():
    with pytest.raises(NotJson, match=f"^args: nested more than {MAX_DEPTH} levels deep"):
        encode(nested(MAX_DEPTH + 1), "args")


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 1000, 100_000])
def test_deep_nesting_is_refused(levels):
    with pytest.raises(NotJson, match=f"^args: nested more than {MAX_DEPTH} levels deep, or a cycle$"):
        encode(nested(levels), "args")


def in_itself(container):
    """Put a container into itself."""
    if isinstance(container, list):
        container.append({"again": container})
    else:
        container["again"] = [container]
    return container


@pytest.mark.parametrize("container", [[], {}, [1.5], {"a": 1}])
def test_a_cycle_is_refused(container):
    with pytest.raises(NotJson, match=r"^args: nested .* or a cycle$"):
        encode(in_itself(container), "args")


# to follow every path would be 2 ** 200 visits
def test_a_list_that_holds_itself_twice_is_refused_at_once():
    program = "from amplifier_core._protocol.json import encode; a = []; a += [a, a]; encode(a, 'args')"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert child.stderr.splitlines()[-1].endswith("NotJson: args: nested more than 200 levels deep, or a cycle")


@thorough
@given(json_values)
def test_scrubbing_leaves_json_as_it_is(value):
    assert exact(scrub(value)) == exact(value)


@pytest.mark.parametrize(("value", "fault"), FOREIGN, ids=lambda item: ascii(item).partition(" at 0x")[0][:40])
def test_scrubbing_makes_json_of_anything(value, fault):
    for scrubbed in (scrub(value), scrub({"a": [value]}), scrub({Number(1): value})):
        assert exact(decode(encode(scrubbed, "value"))) == exact(scrubbed)


REFUSED = {
    "nothing": b"",
    "a space": b" ",
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "-Infinity": b'{"a":-Infinity}',
    "a number out of range": b"1e999",
    "a negative number out of range": b'{"a":[-1e999]}',
    "a byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "no UTF-8": b'"\xff"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "an escaped lone surrogate": b'"\\ud800"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "two values": b"1 2",
    "trailing garbage": b"{}x",
    "a trailing comma": b"[1,]",
    "a truncated value": b'{"a":',
    "single quotes": b"{'a':1}",
    "a comment": b"1 // one",
    "a leading zero": b"01",
    "a leading plus": b"+1",
    "a bare point": b".5",
    "a raw control character": b'"\x01"',
    "a raw line end in a string": b'"a\nb"',
    "a key that is no text": b"{1:2}",
    "capital letters": b"True",
    "deep arrays": b"[" * 50_000,
    "deep arrays, ended": b"[" * 50_000 + b"]" * 50_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "an integer of 5000 digits": b"9" * 5000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_text_that_is_not_strict_json_is_refused_in_one_line(text, kind):
    with pytest.raises(NotJson) as caught:
        decode(kind(text))
    assert len(str(caught.value).splitlines()) == 1


def test_text_with_a_lone_surrogate_is_refused():
    with pytest.raises(NotJson, match="surrogates not allowed"):
        decode('"\ud800"')


@pytest.mark.parametrize(("text", "value"), [("[1,\n2]", [1, 2]), (" 1 ", 1), ("18446744073709551616", 2**64)])
def test_json_text_is_read(text, value):
    for kind in (str, str.encode, lambda text: memoryview(text.encode())):
        assert decode(kind(text)) == value


def read_by_another(text):
    """Read JSON with the standard library, made strict by hand; None for what it refuses."""

    def refuse(name):
        raise ValueError(name)

    def finite(digits):
        number = float(digits)
        return number if abs(number) != float("inf") else refuse(digits)

    try:
        value = json.loads(text.decode(), parse_constant=refuse, parse_float=finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return (value,)


@thorough
@given(
    st.binary(max_size=20)
    | st.text(alphabet='[]{},:"\\ud8019eE+-.ntrfalsu \n', max_size=20).map(str.encode)
    | st.tuples(json_values, st.integers(0, 40), st.binary(max_size=2)).map(
        lambda case: json.dumps(case[0]).encode()[: case[1]] + case[2] + json.dumps(case[0]).encode()[case[1] :]
    )
)
def test_two_readers_agree_on_what_json_is(text):
    expected = read_by_another(text)
    try:
        value = (decode(text),)
    except NotJson:
        value = None
    assert exact(value) == exact(expected)


@thorough
@given(
    json_values
    | st.text(st.sampled_from("a\x7f\x80\x85\x9b\x9f\xa0\u2027\u2028\u2029\u202e\u202f\u2065\u2066\u2069\u206aé‡中😀"))
)
@example({"\u2028": ["\x85", "\x9b2J"]})
def test_json_for_people_is_one_line_for_every_reader_and_means_the_same(value):
    text = printable_json(encode(value, "value"))
    assert exact(json.loads(text)) == exact(value)
    assert len(text.decode().splitlines()) == 1
    assert not set(text.decode()) & set(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066]))
    if not set(repr(value)) & set("\\"):
        assert text == encode(value, "value")  # nothing else is escaped
