import asyncio
import json
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.core.strategies import json_values, thorough

from amplifier_core._protocol import weight
from amplifier_core._protocol.json import NotJson, decode, decode_large, finish
from amplifier_core._protocol.message import decode_message, decode_message_large
from amplifier_core._protocol.weight import MAX_DEPTH, MESSAGE_BYTES, needs_look
from amplifier_core.hookspecs import LARGE

MIB = 1024 * 1024

wide_values = st.recursive(
    st.text(st.sampled_from('a\\"[{,:}]\n/éждя中😀'))
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)
texts = st.tuples(json_values | wide_values, st.booleans(), st.sampled_from([None, 0, 2])).map(
    lambda case: json.dumps(case[0], ensure_ascii=case[1], indent=case[2]).encode()
)


def deepest(text):
    """Count the levels of a JSON text, byte by byte."""
    depth, most, in_string, escaped = 0, 0, False, False
    for char in text.decode():
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char in "[{":
            depth += 1
            most = max(most, depth)
        elif char in "]}":
            depth -= 1
        else:
            in_string = char == '"'
    return most


def memory(value, slot=8):
    """Sum up what values take, each with a slot in its container; what Python shares is free."""
    shared = value is None or isinstance(value, bool) or (isinstance(value, int) and -5 <= value <= 256)
    own = slot if shared or value == "" else slot + sys.getsizeof(value)
    if isinstance(value, dict):
        return own + sum(memory(key, 0) + memory(child, 0) for key, child in value.items())
    return own + (sum(map(memory, value)) if isinstance(value, list) else 0)


def verdict(text, limit, patch, **constants):
    """Say what a look at a text finds; "" for nothing."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**patch, **constants}.items():
            patched.setattr(weight, name, value)
        try:
            finish(weight.look(text, limit))
        except ValueError as error:
            return str(error)
    return ""


@thorough
@given(texts, st.integers(0, 6), st.integers(1, 20))
@example(b'[{"a":"[[\\""}]', 2, 1)
@example(b'["[[[",[[0]]]', 3, 5)
@example(b'["\\\\",[[0]]]', 2, 2)
def test_the_depth_of_a_text_is_counted_exactly_wherever_it_is_cut(text, bound, size):
    for light in (0, 10**9):
        found = verdict(text, 10**9, {"_SLICE": size, "MAX_DEPTH": bound}, _GROWTH=light)
        assert found == (f"nested more than {bound} levels deep" if deepest(text) > bound else "")


@thorough
@given(texts, st.integers(0, 6))
def test_a_text_that_is_said_to_be_shallow_is(text, bound):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weight, "MAX_DEPTH", bound)
        patched.setattr(weight, "SHORT", 2 * bound)
        if not weight.needs_look(text, 10**9):
            assert deepest(text) <= bound


@thorough
@given(
    texts.map(lambda text: text.replace(b"]", b"").replace(b"}", b"")[:40]) | st.binary(max_size=40), st.integers(0, 9)
)
def test_what_is_no_json_does_not_hide_its_depth(text, bound):
    levels = 0
    while text[levels : levels + 1] in (b"[", b"{") and text[levels : levels + 2] != b"{[":
        levels += 1  # what a decoder may enter before it finds the fault
    assert levels <= bound or "levels deep" in verdict(text, 10**9, {"_SLICE": 3, "MAX_DEPTH": bound})


@thorough
@given(texts, st.integers(1, 40))
@example(b'"' + b"a" * 100 + "😀".encode() + b'"', 10)
@example(b'["' + b"a" * 100 + b'\\ud83d\\ude00"]', 7)
@example(b'"' + b"a" * 100 + b'\\u4e2d"', 103)
@example(b'"' + "😀".encode() + b"a" * 100 + b'"', 10)
@example(b'"' + "😀".encode() + b"\\\\" * 50 + b'\\"' * 50 + b'"', 10)
@example(b'["","\\ud83d\\ude00' + b"a" * 100 + b'"]', 9)
@example(b'{"\\u001f0000\\u001f\\u001f\\u001f\\u001f\\u0007\\u0007\\ud800\\udc00": null}', 1)
@example(b"[" + b",".join([b'{"a":1}'] * 20) + b"]", 8)
@example(b"[" + b"[]," * 50 + b"{}]", 8)
def test_values_take_no_more_than_their_text_was_said_to(text, size):
    taken = memory(json.loads(text))
    for allowed in (taken - 1, taken // 2):
        found = verdict(text, allowed * 2 // 3, {"_SLICE": size, "_LEAST": 0, "_GROWTH": 10**9})
        assert "its values would take about" in found


@thorough
@given(texts, st.integers(1, 40))
def test_a_text_is_not_said_to_take_much_more_than_its_values_do(text, size):
    allowed = 6 * memory(json.loads(text)) + 6 * len(text) + 64
    assert not verdict(text, allowed, {"_SLICE": size, "_LEAST": 0, "_GROWTH": 10**9})


@thorough
@given(texts)
@example(json.dumps([{"ж": []}] * 99, ensure_ascii=False, separators=(",", ":")).encode())
def test_no_text_grows_by_more_than_what_is_let_through_unseen(text):
    assert memory(json.loads(text)) <= 48 * len(text)


@pytest.mark.parametrize("between", [",", ", ", ",\n    "])
@pytest.mark.parametrize("row", ['{"a":1}', '{"a":[1]}', "[1]", '[{"a":[[]]}]', '{"a":"},{"}'])
def test_many_rows_are_not_deep(row, between):
    rows = between.join([row] * 1000).join("[]")
    assert decode(rows) == json.loads(rows)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
@pytest.mark.parametrize("rest", ["", ',{"a":1},{"a":2}' * 300, ',"},{"' * 300])
@pytest.mark.parametrize("spaces", [0, 100_000, 2 * MIB])
def test_two_hundred_levels_are_read_and_no_more(levels, rest, spaces):
    text = "[" * levels + "0" + "]" * (levels - 1) + rest + "]" + " " * spaces
    if levels <= MAX_DEPTH:
        assert decode(text) == decode(text.encode()) == json.loads(text)
        return
    for read in (decode, lambda text: decode(text.encode())):
        with pytest.raises(NotJson, match="^nested more than 200 levels deep$"):
            read(text)


def test_two_hundred_levels_of_a_message_are_read_and_no_more():
    for levels, fits in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False), (100_000, False)):
        text = b'{"ok":true,"result":' + b"[" * levels + b"]" * levels + b"}"
        if fits:
            assert decode_message(text).is_reply()
        else:
            with pytest.raises(NotJson, match="^nested more than 200 levels deep$"):
                decode_message(text)


@pytest.mark.parametrize("cell", [b"[],", b"{},", b'"",', b"1,", b'{"a":0},', "😀".encode().join([b'"', b'",'])])
@pytest.mark.parametrize("limit", [1, MIB, 4 * MIB])
def test_values_that_take_more_than_their_message_may_are_refused(cell, limit):
    room = max(MIB, limit * 3 // 2)
    text = b"[" + cell * (room // 8 // len(cell)) + b"0]"
    if len(text) * 48 > room:
        with pytest.raises(NotJson, match=r"^its values would take about \d+ bytes of memory or more, of \d+$"):
            decode(text, limit)
    few = b"[" + cell * (room // 400) + b"0]"
    assert decode(few, limit) == json.loads(few)


def test_a_text_of_just_the_limit_is_read():
    text = "é".join(["x" * MIB] * 4)
    assert decode(json.dumps(text), len(text)) == text
    assert decode(json.dumps(text, ensure_ascii=False), len(text)) == text


@pytest.mark.parametrize("cell", [b"[],", b"{},", b'"",', b"1,", b'{"a":0},'])
def test_a_large_text_of_few_values_needs_no_look(cell):
    long = b'"' + b"x" * 8 * MIB + b'",'
    assert not needs_look(b"[" + cell * 40 + long + b"0]", MESSAGE_BYTES)
    assert needs_look(b"[" + cell * 120 + long + b"0]", MESSAGE_BYTES)
    assert needs_look(b"[" + cell + long * 5 + b"0]", MESSAGE_BYTES) is (len(long) * 5 > MESSAGE_BYTES * 3 // 2)
    assert needs_look(b"[" + cell + long.replace(b"xx", b"\\n") * 2 + b"0]", MESSAGE_BYTES)  # each may be four bytes
    assert needs_look(b"[" * 201 + long + b"]" * 201, MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"ok":true,"result":[' + b"[]," * MIB + b"0]}", "its values would take about"),
        (b'{"ok":true,"result":' + b"[" * MIB, "nested more than 200 levels deep"),
        (b'{"ok":true,"result":0,"more":"' + b"x" * MIB + b'\xff"}', "can't decode byte 0xff"),
        (b'{"ok":true,"result":"' + b"x" * MIB, "truncated"),
    ],
    ids=["large", "deep", "no UTF-8", "cut off"],
)
async def test_a_large_text_is_refused_in_the_same_words(text, why):
    with pytest.raises(NotJson, match=why) as message:
        decode_message(text)
    with pytest.raises(NotJson) as large:
        await decode_message_large(text)
    assert str(large.value) == str(message.value)
    with pytest.raises(NotJson, match=why.replace("can't decode byte 0xff", "truncated|UTF-8")):
        await decode_large(text[:-2])


async def test_the_events_of_a_large_message_do_not_count_for_its_size():
    text = json.dumps({"ok": True, "result": "x" * MIB, "events": [{"event": "a:b"}] * 9}).encode()
    assert (await decode_message_large(text)).size == decode_message(text).size < len(text) - 100


async def test_others_have_their_turn_while_a_large_text_is_looked_at():
    texts = ["ж" * 1024] * 1024
    text = json.dumps({"ok": True, "result": texts}, ensure_ascii=False).encode()
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert (await decode_message_large(text)).result == texts
    assert turns >= 2 * len(text) // (64 * 1024)  # its depth and weight, and that it is UTF-8
    turns = 0
    assert (await decode_large(text))["result"] == texts
    assert turns >= len(text) // (64 * 1024)
    task.cancel()


def test_no_copy_is_made_of_a_large_text_to_see_that_it_has_few_values():
    text = b'{"ok":true,"result":["' + b"x" * 8 * MIB + b'"]}'
    tracemalloc.start()
    assert not needs_look(text, MESSAGE_BYTES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB


async def test_a_large_text_of_no_interest_is_decoded_at_once():
    text = json.dumps({"ok": True, "result": "x" * (LARGE + 1)}).encode()
    assert (await decode_large(text))["ok"] is True
    assert (await decode_message_large(text)).size == len(text)


@pytest.mark.parametrize("start", ["[", '{"a":'])
def test_no_text_ends_a_thread_with_a_small_stack(start):
    program = f"""if True:
        import contextlib, threading
        from amplifier_core._protocol.json import decode, encode
        from amplifier_core._protocol.message import decode_message
        said = []
        def read():
            for text in ({start!r} * (400 // len({start!r})), "[" * 400):
                with contextlib.suppress(ValueError):
                    decode(text)
            for n in (199, 1000, 5000, 100_000):
                text = ({start!r} * n + "1" + ("]" if {start!r} == "[" else "}}") * n)
                for each in (decode, lambda text: decode_message(('{{"ok":true,"result":' + text + "}}").encode())):
                    try:
                        value = each(text)
                        encode(getattr(value, "result", value), "value")
                    except ValueError as error:
                        said.append(str(error))
        threading.stack_size(192 * 1024)  # msgspec takes up to 650 bytes a level
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert said == ["nested more than 200 levels deep"] * 6, said
    """
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (child.returncode, child.stderr) == (0, "")
