"""Fuzzes each target for a moment, and repeats all earlier findings."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.seeds import SEEDS, WORDS
from tests.fuzz.targets import TARGETS

EXAMPLES = {"stdio": 60, "http": 60}
"""Fewer where an example goes through a process or a socket."""

FOUND = {
    "framing": [b"\xff\0\0\n", b"\xff\x05\x05 \n\r\n"],  # a blank line in a read of its own was passed on
    "message": [b'{"pending":{"syscalls":[],"state":"\xff"}}'],  # this state went back to the module unchanged
    "descriptor": [  # the error was two lines
        b'{"name":"a","kind":"tool","transport":{"type":"http","a\xe2\x80\xa8":1},"capabilities":[]}'
    ],
}
"""Earlier findings, by target."""

edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), st.sampled_from(WORDS) | st.binary(max_size=4)))


def edited(seed, changes):
    """Replace some bytes of a seed by words."""
    for place, length, word in changes:
        at = place % (len(seed) + 1)
        seed = seed[:at] + word + seed[at + length :]
    return seed


def inputs(target):
    """Draw bytes: any, or a changed seed."""
    return st.binary(max_size=200) | st.builds(edited, st.sampled_from(SEEDS[target]), edits)


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_nothing_breaks(target):
    with TARGETS[target]() as check:
        for data in (*SEEDS[target], *FOUND.get(target, ())):
            check(data)

        @settings(max_examples=EXAMPLES.get(target, 200), deadline=None, suppress_health_check=list(HealthCheck))
        @given(inputs(target))
        def fuzz(data):
            check(data)

        fuzz()
