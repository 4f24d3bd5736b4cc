"""JSON paths: what they choose, held against the plainest reading of RFC 9535."""

import copy
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.strategies import scalars, thorough

from amplifier_core import BadRequest
from amplifier_core._events.paths import LENGTH_MAX, read_path, replace

MARK = {"$redacted": True}
NAMES = ["a", "b", "A", "", "a.b", "a'b", 'a"b', "a\\b", "ä", "$", "*", "0", "😀", "a\nb"]

documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: isinstance(value, dict | list))

steps = st.tuples(st.booleans(), st.sampled_from(NAMES) | st.integers(-4, 4) | st.none())


def written(draw, step):
    """Write one step of a path, in one of its spellings."""
    descends, choice = step
    dots = ".." if descends else ""
    blank = draw(st.sampled_from(["", " ", "\t"]))
    if choice is None:
        return draw(st.sampled_from([f"{dots or '.'}*", f"{dots}[*]", f"{dots}[{blank}*{blank}]"]))
    if isinstance(choice, int):
        return f"{dots}[{blank}{choice}{blank}]"
    double = json.dumps(choice, ensure_ascii=draw(st.booleans()))
    single = "'" + double[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    spellings = [f"{dots}[{blank}{single}]", f"{dots}[{double}{blank}]"]
    if choice in ("a", "b", "A", "ä", "😀"):
        spellings.append(f"{dots or '.'}{choice}")
    return draw(st.sampled_from(spellings))


@st.composite
def paths(draw):
    wanted = draw(st.lists(steps, min_size=1, max_size=4))
    text = "$" + "".join(draw(st.sampled_from(["", " "])) + written(draw, step) for step in wanted)
    return text, wanted


def children(value):
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def below(value, place):
    """List a value, and all that is below it, with the places."""
    return [(place, value)] + [found for key, child in children(value) for found in below(child, (*place, key))]


def chosen_by(wanted, document):
    """List the places that a path chooses, step by step, as the RFC tells it."""
    nodes = [((), document)]
    for descends, choice in wanted:
        bases = [found for place, value in nodes for found in below(value, place)] if descends else nodes
        nodes = [
            ((*place, key), child)
            for place, value in bases
            for key, child in children(value)
            if choice is None
            or (isinstance(choice, str) and isinstance(value, dict) and key == choice)
            or (
                isinstance(choice, int)
                and isinstance(value, list)
                and key == choice % max(len(value), 1)
                and -len(value) <= choice < len(value)
            )
        ]
    return {place for place, _ in nodes}


def marked(value, places, place=()):
    if place in places:
        return MARK
    if isinstance(value, dict):
        return {key: marked(child, places, (*place, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [marked(child, places, (*place, n)) for n, child in enumerate(value)]
    return value


@thorough
@given(documents, st.lists(paths(), min_size=1, max_size=4))
def test_paths_take_out_what_the_rfc_says_and_nothing_else(document, several):
    places = set().union(*(chosen_by(wanted, document) for _, wanted in several))
    left = copy.deepcopy(document)
    replace(left, [read_path(text, "redact") for text, _ in several], MARK)
    assert left == marked(document, places)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("$.a", {"a": MARK, "b": [{"a": 2, "c": [3]}]}),
        ("$['b'][0][\"a\"]", {"a": 1, "b": [{"a": MARK, "c": [3]}]}),
        ("$..a", {"a": MARK, "b": [{"a": MARK, "c": [3]}]}),
        ("$..[0]", {"a": 1, "b": [MARK]}),
        ("$.b[-1].c[*]", {"a": 1, "b": [{"a": 2, "c": [MARK]}]}),
        ("$.b..*", {"a": 1, "b": [MARK]}),
        ("$", {"a": MARK, "b": MARK}),
        ("$.b[1]", {"a": 1, "b": [{"a": 2, "c": [3]}]}),
        ("$.a.b", {"a": 1, "b": [{"a": 2, "c": [3]}]}),
        (r"$['\u0061']", {"a": MARK, "b": [{"a": 2, "c": [3]}]}),
    ],
)
def test_a_path_takes_out(path, left):
    document = {"a": 1, "b": [{"a": 2, "c": [3]}]}
    replace(document, [read_path(path, "redact")], MARK)
    assert document == left


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("", 1), ("a", 1), ("@.a", 1), (".a", 1), ("$a", 2), ("$.", 2), ("$..", 2), ("$...a", 2), ("$.a.", 4),
        ("$.0", 2), ("$.a b", 4), ("$[", 2), ("$[]", 2), ("$[a]", 2), ("$['a]", 2), ("$['a'", 2), ("$['a','b']", 2),
        ("$[1:2]", 2), ("$[?@.a]", 2), ("$[01]", 2), ("$[-0]", 2), ("$[1.0]", 2), ("$[1234567890123456]", 2),
        ("$.a.[0]", 4), ("$.a ", 4), ("$['\n']", 2), (r"$['\x']", 2), (r"$['\"']", 2), (r'$["\'"]', 2), ("$.-a", 2),
        ("$.a..", 4), ("$..[", 2),
    ],
)  # fmt: skip
def test_what_is_no_path_that_is_known_is_refused_with_the_place(path, at):
    with pytest.raises(BadRequest) as caught:
        read_path(path, "redact[3]")
    assert caught.value.message == (
        f"redact[3]: {path!r}: character {at}: expected one of $, .name, ['name'], [n], .*, [*], and .. before any of "
        "them; nothing else is known"
    )


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (5, "redact: expected a JSON path, got int"),
        (None, "redact: expected a JSON path, got NoneType"),
        ("$" + ".a" * 512, f"redact: expected at most {LENGTH_MAX} characters, got 1025"),
        (r"$['\ud800']", r"redact: \"$['\\ud800']\": expected Unicode text as a name, got a lone surrogate"),
        ("$['\ud800']", r"redact: \"$['\ud800']\": expected Unicode text as a name, got a lone surrogate"),
    ],
)
def test_what_is_no_path_is_refused(path, problem):
    with pytest.raises(BadRequest) as caught:
        read_path(path, "redact")
    assert caught.value.message == problem.replace('\\"', '"')


def test_many_steps_that_begin_anywhere_take_no_more_than_steps_times_values():
    """As lists of nodes, which the RFC speaks of, these would be 2**200."""
    document = inner = {}
    for _ in range(190):
        inner["a"] = [{}]
        (inner,) = inner["a"]
    began = time.process_time()
    replace(document, [read_path("$" + "..*" * 300 + "..a", "redact")], MARK)
    assert time.process_time() - began < 5
    assert json.dumps(document).count("$redacted") == 1
