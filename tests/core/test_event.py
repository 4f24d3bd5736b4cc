import hashlib
import json
import math
import re
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.strategies import json_values, thorough

from amplifier_core._protocol.event import (
    DATA_LIMIT,
    KERNEL_EVENTS,
    Event,
    SizeLimit,
    checked_data,
    decode_event,
    event_id,
    is_event_name,
    is_event_pattern,
    matches,
)
from amplifier_core._protocol.json import encode_checked

# The taxonomy of section 7, as it is written there.
TAXONOMY = [
    *("kernel:start", "kernel:end"),
    *("session:start", "session:fork", "session:end", "session:span", "mount:add", "mount:remove", "hook:register"),
    *("context:get", "context:set", "context:pre_compact", "context:post_compact", "module:invoke", "policy:decision"),
    "module:pre_invoke",
    *("artifact:write", "artifact:read", "module:start", "module:exit", "module:noise", "module:changed"),
    *("hook:error", "sink:error", "events:dropped", "mount:pre_add", "module:wait", "module:reply"),
    *("module:chunk", "policy:request", "policy:answer", "kernel:resume", "kernel:fork"),
]


def test_every_name_of_the_taxonomy_is_the_kernels_own_or_one_that_modules_emit_too():
    taxonomy = {*TAXONOMY}
    assert {
        "artifact:write",
        "artifact:read",
        "context:pre_compact",
        "context:post_compact",
    } == taxonomy - KERNEL_EVENTS
    assert taxonomy >= KERNEL_EVENTS
    assert all(is_event_name(name) and is_event_pattern(name) for name in taxonomy)


@pytest.mark.parametrize(
    "pattern", ["policy:requests", "module:invoked", "session:started", "events:drop", "kernel:begin"]
)
def test_a_misspelt_name_of_the_kernels_own_is_no_pattern(pattern):
    assert not is_event_pattern(pattern)


@pytest.mark.parametrize("name", ["a:b", "0:1", "my-app.x:did_it", "a:b:c"])
def test_a_name_is_namespace_and_verb(name):
    assert is_event_name(name)
    assert is_event_pattern(name)


@pytest.mark.parametrize(
    "name", ["", "a", ":", "a:", ":b", "a::b", "A:b", "a:B", "a b:c", "a:b\n", "a:*b", "-a:b", "ä:b", 5, None, ["a:b"]]
)
def test_any_other_text_is_no_name(name):
    assert not is_event_name(name)
    assert not is_event_pattern(name)


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("*", ["a:b", "session:end"], []),
        ("a:*", ["a:b", "a:b:c"], ["ab:c", "b:a"]),
        ("a:b:*", ["a:b:c"], ["a:b", "a:bc"]),
        ("a:b", ["a:b"], ["a:bc", "a:b:c", "a:c"]),
    ],
)
def test_a_pattern_means_a_name_a_prefix_or_all(pattern, names, others):
    assert is_event_pattern(pattern)
    assert all(matches(pattern, name) for name in names)
    assert not any(matches(pattern, name) for name in others)


@pytest.mark.parametrize("pattern", ["", "**", "a*", "*:a", "*:*", "a:*:b", ":*", "a:*\n", None, 5])
def test_any_other_text_is_no_pattern(pattern):
    assert not is_event_pattern(pattern)


envelopes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "id": st.text(),
        "ts": st.floats(0, 1e10),
        "event": st.sampled_from(TAXONOMY),
        "component": st.text(),
    },
    optional={
        "seq": st.integers(1, 2**63),
        "status": st.sampled_from(["ok", "error"]),
        "duration_ms": st.floats(0, 1e9),
        **dict.fromkeys(["module", "session_id", "request_id", "span_id", "parent_span_id"], st.text()),
        "data": st.dictionaries(st.text(), json_values, max_size=3),
        "error": st.fixed_dictionaries({"code": st.text(), "message": st.text()}),
    },
)


@thorough
@given(envelopes)
def test_an_observer_receives_the_event_that_is_logged(fields):
    line = encode_checked(Event(**fields))
    assert b"\n" not in line
    told = {name: value for name, value in fields.items() if value != {}}
    assert json.loads(line) == told  # the log has no null or empty fields
    assert decode_event(line) == Event(**fields)


def test_an_observer_may_change_the_data_that_it_receives():
    line = encode_checked(Event("e", 1.0, "a:b", "kernel"))
    decode_event(line).data["mine"] = 1
    assert decode_event(line).data == {}


@thorough
@given(st.lists(st.tuples(st.floats(0, 4e9), st.integers(1, 2**31)), min_size=2, max_size=6))
def test_ids_sort_by_time_and_then_by_number(moments):
    in_order = sorted(moments, key=lambda moment: (int(moment[0] * 1e6), moment[1]))
    assert [event_id(ts, seq, "tag") for ts, seq in in_order] == sorted(event_id(ts, seq, "tag") for ts, seq in moments)


def test_an_id_tells_kernels_apart():
    assert event_id(1.5, 1, "one") != event_id(1.5, 1, "two")
    assert re.fullmatch("evt_[0-9a-f]{16}00000001tag", event_id(1.7e9, 1, "tag"))


@pytest.mark.parametrize(("value", "size"), [("xx", 4), ([1, 2], 5), ({"a": 1}, 7), ("é", 4), (1234, 4), (None, 4)])
def test_a_value_above_the_limit_stands_as_its_size(value, size):
    data = {"value": value, "small": 1}
    assert SizeLimit(size - 1).apply(data) == {"value": {"$omitted": size}, "small": 1}
    assert SizeLimit(size).apply(data) == SizeLimit(math.inf).apply(data) == data
    digest = hashlib.sha256(encode_checked(value)).hexdigest()
    assert SizeLimit(size - 1, sha256=True).apply(data)["value"] == {"$omitted": size, "$sha256": digest}


@thorough
@given(st.dictionaries(st.text(), json_values, max_size=4), st.just(math.inf) | st.integers(0, 100))
def test_emitted_data_is_kept_member_by_member_within_the_limit(data, limit):
    shown, fault = checked_data(data, SizeLimit(limit))
    assert fault == ""
    logged = json.loads(encode_checked(shown))
    assert logged.keys() == data.keys()
    assert json.loads(encode_checked(checked_data(data, SizeLimit(limit), decoded=True)[0])) == logged
    for key, value in data.items():
        size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        whole = json.dumps(logged[key]) == json.dumps(value)
        assert whole or logged[key]["$omitted"] > limit, size


@pytest.mark.parametrize(
    ("data", "kept", "fault"),
    [
        (None, None, ""),
        ({}, {}, ""),
        (MappingProxyType({"a": 1}), {"a": 1}, ""),
        (MappingProxyType({"a": "x" * 50}), {"a": {"$omitted": 52}}, ""),
        ([1], None, "data: expected an object, got list"),
        ("a", None, "data: expected an object, got str"),
        (5, None, "data: expected an object, got int"),
        ({"a": {1}, "b": 2}, {"b": 2}, "data.a: expected JSON, got set"),
        ({"a": {1}, "b": b"", "c": "x" * 50}, {"c": {"$omitted": 52}}, "data.a: expected JSON, got set"),
        ({1: 2, "b": 3}, {"b": 3}, "data: expected text as a key, got int"),
        ({"\ud800": 2, "b": 3}, {"b": 3}, "data: expected Unicode text as a key, got a lone surrogate"),
        ({"a": float("nan")}, {}, "data.a: expected a finite number, got nan"),
    ],
)
def test_members_that_are_not_json_are_left_out_and_named(data, kept, fault):
    shown, said = checked_data(data, SizeLimit(20))
    assert (json.loads(encode_checked(shown)), said) == (kept, fault)


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({str(n): "x" * 7000 for n in range(1000)}, 9),
        ({str(n): "x" * 9000 for n in range(10_000)}, 625),
        ({"small": 1, "k" * 8_000_000: 0, "after": 1}, 1),
        (dict.fromkeys(map(str, range(100_000)), 0), 9520),
    ],
    ids=range(4),
)
def test_what_is_beyond_eight_times_the_limit_is_left_out_and_counted(data, kept, decoded):
    shown, fault = checked_data(data, SizeLimit(), decoded=decoded)
    assert fault == ""
    assert shown.pop("$omitted_members") == len(data) - len(shown)
    assert len(shown) == kept
    assert list(shown) == list(data)[:kept]
    assert len(encode_checked(shown)) < 100 * 1024


@pytest.mark.parametrize("unit", ["x", "é", "中", "😀", '"', "\u2028", "".join(map(chr, range(256)))])
def test_of_a_long_text_the_size_is_exact(unit):
    text = unit * (200_000 // len(unit))
    for value in (text, [text]):
        assert SizeLimit().apply({"a": value}) == {"a": {"$omitted": len(encode_checked(value))}}


def test_an_embedder_that_lifts_the_limit_has_everything():
    data = {"k" * 1_000_000: "x" * 1_000_000, **{str(n): "x" * 100 for n in range(10_000)}}
    for decoded in (False, True):
        shown, _ = checked_data(data, SizeLimit(math.inf), decoded=decoded)
        assert json.loads(encode_checked(shown)) == data


def test_what_a_transport_made_itself_is_looked_at_all_the_same():
    assert checked_data({"a": object(), "b": 1}, SizeLimit(), decoded=True) == (
        {"b": 1},
        "data.a: expected JSON, got object",
    )


def test_a_name_has_at_most_128_characters():
    assert is_event_name("a:" + "b" * 126)
    assert not is_event_name("a:" + "b" * 127)
    assert is_event_pattern("a:" + "b" * 126)
    assert not is_event_pattern("a:" + "b" * 127)
    assert not is_event_pattern("a" * 127 + ":*")


def test_the_limit_is_eight_kibibytes():
    assert DATA_LIMIT == 8192
