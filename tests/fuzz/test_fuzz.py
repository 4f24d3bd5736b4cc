"""The targets, for as long as a test may take, and everything that they ever found."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.seeds import SEEDS, WORDS
from tests.fuzz.targets import TARGETS

EXAMPLES = {"stdio": 60, "http": 60}
"""Fewer where each one goes through a process or a socket."""

FOUND = {
    "framing": [b"\xff\0\0\n", b"\xff\x05\x05 \n\r\n"],  # a blank line that came alone was handed on
    "message": [b'{"pending":{"syscalls":[],"state":"\xff"}}'],  # this went back to the module as it was
    "descriptor": [  # the error was two lines
        b'{"name":"a","kind":"tool","transport":{"type":"http","a\xe2\x80\xa8":1},"capabilities":[]}'
    ],
}
"""What was a finding once, by target."""

edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), st.sampled_from(WORDS) | st.binary(max_size=4)))


def edited(seed, changes):
    """Put words into a seed, each in place of some of its bytes."""
    for place, length, word in changes:
        at = place % (len(seed) + 1)
        seed = seed[:at] + word + seed[at + length :]
    return seed


def inputs(target):
    """Draw bytes: any, or nearly right."""
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
