import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplifier_transport_stdio._framing import frame, id_in


@given(st.dictionaries(st.text(), st.text()))
def test_a_frame_is_one_line_of_json(params):
    line = frame(7, "invoke", json.dumps(params).encode())
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"id": "r7", "method": "invoke", "params": params}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'debug{"id":"r1","ok":true}', "r1"),
        (b'{"id" : "r12", "ok": NaN}', "r12"),
        (b'\xff"id":"r3"', "r3"),
        (b'{"id":1}', None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_the_id_of_a_broken_line_is_found(line, found):
    assert id_in(line) == found
