import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplifier_transport_stdio._framing import find_ids, frame


@given(st.dictionaries(st.text(), st.text()))
def test_a_frame_is_one_line_of_json(params):
    line = frame(7, "invoke", json.dumps(params).encode())
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"id": "r7", "method": "invoke", "params": params}


ROWS = b'[{"id":"r2"},{"id":"r3","rows":[{"id":"r4"}]}]'
WIDE = b'{"id":"r2","text":"%b"},' % (b"x" * 100_000)
BROKEN = {
    "noise before it": (b'debug{"id":"r1","ok":true}', ["r1"]),
    "noise in brackets before it": (b'[INFO] {"id":"r1","ok":true,"result":NaN}', ["r1"]),
    "spaces": (b'{"id" : "r12", "ok": NaN}', ["r12"]),
    "a byte order mark": (b'\xef\xbb\xbf{"id":"r1","ok":true}', ["r1"]),
    "a number": (b'{"id":1,"x":NaN}', ["1"]),
    "rows before it": (b'{"ok":true,"result":%b,"x":NaN,"id":"r1"}\n' % ROWS, ["r1"]),
    "rows behind it": (b'{"id":"r1","ok":true,"result":%b,"x":NaN}\n' % ROWS, ["r1"]),
    "rows alone": (b'{"ok":true,"result":%b,"x":NaN}\n' % ROWS, []),
    "cut within rows": (b'{"ok":true,"result":%b\n' % ROWS[:-1], []),
    "cut within a row": (b'{"ok":true,"result":%b\n' % ROWS[:12], []),
    "cut within a string": (b'{"id":"r1","ok":true,"result":"a\n', ["r1"]),
    "the rest of a string": (b'b","rows":%b,"id":"r1"}\n' % ROWS, ["r1"]),
    "the rest of a list": (b'],"id":"r1"}\n', ["r1"]),
    "a row on its own": (b'{"id":"r2","x":NaN},\n', []),
    "the last row": (b'{"id":"r2","x":NaN}]\n', []),
    "quotes that are not escaped": (b'{"ok":true,"result":"say "hi"","rows":%b,"id":"r1"}\n' % ROWS, ["r1"]),
    "one quote too many": (b'{"ok":true,"result":"5" wide","rows":%b,"id":"r1"}\n' % ROWS, ["r1"]),
    "an id in text": (b'{"ok":true,"result":"{\\"id\\":\\"r2\\"}","x":NaN,"id":"r1"}\n', ["r1"]),
    "a list around it": (b'[{"rows":%b,"id":"r1"}]\n' % ROWS, ["r1"]),
    "two replies": (b'{"id":"r1","ok":true,"result":1}{"id":"r2","ok":true,"result":2}\n', ["r1", "r2"]),
    "a request": (b'{"jsonrpc":"2.0","id":3,"method":"x","params":NaN}\n', []),
    "a notification": (b'{"jsonrpc":"2.0","method":"x","params":{"id":3,"x":NaN}}\n', []),
    "long": (b'{"ok":true,"result":[%bNaN],"id":"r1"}\n' % (WIDE * 3), ["r1"]),
    "long, and cut": (b'{"ok":true,"result":[%b' % (WIDE * 3), []),
    "no object": (b"hello", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("line", "found"), BROKEN.values(), ids=BROKEN)
def test_the_ids_that_a_broken_line_answers_are_found(line, found):
    assert find_ids(line) == found


def test_an_id_on_a_line_of_its_own_counts_while_a_single_request_waits():
    line = b'  "id": "r1",\n'
    assert (find_ids(line, alone=True), find_ids(line)) == (["r1"], [])


@pytest.mark.parametrize(
    "line",
    [
        b'"\\"' * 30_000,
        b'"\\' * 40_000,
        b"{" * 70_000,
        b'{"id":' * 20_000,
        b"\\" * 70_000 + b'"',
        b'}"di"' * 20_000 + b"}",
    ],
)
def test_a_line_that_is_made_to_take_long_takes_little(line):
    began = time.process_time()
    find_ids(line)
    assert time.process_time() - began < 1


INSIDE = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["r1", "r2", '{"id":"r2"}', "\\", '"id":"r2"'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["id", "method", "a", '"', "\\"]), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(st.text().filter(lambda key: key not in ("id", "method")), INSIDE), st.integers(0), st.booleans()
)
def test_the_id_of_the_message_itself_is_found_whatever_is_inside(members, place, ascii_only):
    fields = [*members.items(), ("x", float("nan"))]
    fields.insert(place % (len(fields) + 1), ("id", "r1"))
    line = json.dumps(dict(fields), ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert find_ids(line + b"\n") == ["r1"]


@given(st.dictionaries(st.text().filter(lambda key: key not in ("id", "method")), INSIDE, min_size=1))
def test_no_id_is_found_in_what_is_inside(members):
    line = json.dumps({**members, "x": float("nan")}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert find_ids(line + b"\n") == []


@given(st.dictionaries(st.text().filter(lambda key: key not in ("id", "method")), INSIDE, min_size=1), st.integers(0))
def test_the_rest_of_a_message_names_no_other_request(members, start):
    line = json.dumps({**members, "x": float("nan"), "id": "r1"}).encode()
    assert find_ids(line[start % len(line) :] + b"\n") in ([], ["r1"])
