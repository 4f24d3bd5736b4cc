import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.core.oracle import WORDS, includes, judge, permits, well_formed
from tests.core.strategies import json_values, thorough

from amplifier_core._protocol.capability import canonical
from amplifier_core._protocol.gate import Answer, decide, decide_again, narrowed_below, read_answer

BASE = Path("/base")

# Words of one namespace: they are likely to cover each other.
FAMILIES = [[word for word in WORDS if word.startswith(start)] for start in ("fs:", "sys:", "net:", "x-", "env:")]
family_words = st.sampled_from(FAMILIES).flatmap(st.sampled_from)


@st.composite
def wanted_lists(draw, smallest=0):
    return draw(st.lists(family_words, min_size=smallest, max_size=4, unique=True))


BELOW = {want: [word for word in WORDS if includes(want, word)] for want in WORDS}


@st.composite
def answers_to(draw, wanted):
    decision = draw(st.sampled_from([*["allow"] * 7, "abstain", "deny"]))
    some = st.tuples(*(st.sampled_from(BELOW[want]) for want in wanted)).map(list)
    fewer = some.map(lambda words: words[1:])
    words = draw(st.none() | some | some | fewer | st.lists(family_words, max_size=2))
    return decision, words, draw(st.sampled_from(["call", "session", "session"])), draw(st.booleans())


@st.composite
def cases(draw, smallest=0):
    """Draw the wanted capabilities, and the answers of a session's or a fork's hooks. Few of the hooks failed."""
    wanted = draw(wanted_lists(smallest))
    failed = st.none() if draw(st.integers(0, 9)) == 0 else st.nothing()
    answers = draw(st.lists(answers_to(wanted) | failed, max_size=4))
    return wanted, answers, draw(st.booleans())


def answered(answer, *, fork):
    """Convert an answer of the oracle into the gate's."""
    if answer is None:
        return Answer("hook", "deny", reason="the hook failed")
    decision, words, scope, own = answer
    return Answer("hook", decision, None if words is None else spelled(words), scope, may_grant=not (fork and own))


def spelled(words):
    return tuple(canonical(word, BASE) for word in words)


def decided(wanted, answers, *, fork=False):
    return decide(spelled(wanted), [answered(answer, fork=fork) for answer in answers])


def uses(words):
    return frozenset().union(*map(permits, words))


@settings(thorough, max_examples=200)
@given(cases())
@example((["fs:read:/", "fs:read:/a/b"], [("allow", ["fs:read:/a"], "call", False)], False))
@example((["sys:invoke", "sys:invoke:*"], [("allow", None, "call", False)], False))
@example((["env:A"], [("allow", None, "session", False), ("allow", None, "call", True)], True))
@example((["fs:read:/a"], [("allow", ["fs:write:/a/b"], "call", False)], False))
@example((["fs:write:/a/b"], [("allow", ["fs:read:/a"], "call", False)], False))
@example((["fs:read:/", "fs:write:/a"], [("allow", ["fs:read:/"], "call", False)], False))
def test_the_gate_decides_as_the_protocol_says(case):
    wanted, answers, fork = case
    allowed, granted, scope = judge(wanted, answers, fork=fork)
    decision = decided(wanted, answers, fork=fork)
    assert (decision.allowed, uses(decision.granted), decision.scope) == (allowed, granted, scope)


def test_an_allow_that_covers_a_wanted_capability_allows_it():
    decision = decide(["fs:read:/", "fs:read:/a/b"], [Answer("hook", "allow", ("fs:read:/a",))])
    assert decision.allowed
    assert decision.granted == ("fs:read:/a",)


def test_two_words_for_one_thing_do_not_cancel_each_other():
    decision = decided(["sys:invoke", "sys:invoke:*"], [("allow", None, "call", False)])
    assert decision.allowed
    assert uses(decision.granted) == permits("sys:invoke")


def test_a_forks_own_allow_for_one_call_is_asked_again():
    answers = [Answer("inherited", "allow", scope="session"), Answer("own", "allow", scope="call", may_grant=False)]
    assert decide(["env:A"], answers).scope == "call"


@thorough
@given(cases())
def test_nothing_is_granted_that_was_not_wanted(case):
    wanted, answers, fork = case
    decision = decided(wanted, answers, fork=fork)
    assert all(any(includes(want, word) for want in wanted) for word in decision.granted)
    assert decision.allowed or (decision.granted, decision.scope) == ((), "call")


@thorough
@given(cases(smallest=1))
def test_a_capability_that_no_hook_allowed_is_denied(case):
    wanted, answers, _ = case
    assert not decided(wanted, []).allowed
    silent = [answer for answer in answers if answer and answer[0] != "allow"]
    assert not decided(wanted, silent).allowed


@thorough
@given(cases(), st.integers(0, 4), st.sampled_from(["call", "session"]), st.none() | st.just([]))
def test_one_deny_denies(case, place, scope, words):
    wanted, answers, fork = case
    for own in (False, True):
        answers.insert(place, ("deny", words, scope, own))
        decision = decided(wanted, answers, fork=fork)
        assert (decision.allowed, decision.granted, decision.scope) == (False, (), "call")
        answers.remove(("deny", words, scope, own))


@thorough
@given(cases(), st.integers(0, 4))
def test_abstaining_for_the_session_changes_nothing_and_for_the_call_the_scope_alone(case, place):
    wanted, answers, fork = case
    before = decided(wanted, answers, fork=fork)
    answers.insert(place, ("abstain", None, "session", False))
    assert decided(wanted, answers, fork=fork) == before
    answers.insert(place, ("abstain", None, "call", False))
    after = decided(wanted, answers, fork=fork)
    assert (after.allowed, after.granted, after.scope) == (before.allowed, before.granted, "call")


@thorough
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_matter(case, random):
    wanted, answers, fork = case
    before = decided(wanted, answers, fork=fork)
    random.shuffle(answers)
    after = decided(wanted, answers, fork=fork)
    assert (after.allowed, uses(after.granted), after.scope) == (before.allowed, uses(before.granted), before.scope)


@thorough
@given(cases())
def test_a_hook_that_a_fork_registers_itself_never_widens(case):
    wanted, answers, _ = case
    inherited = [answer for answer in answers if answer is None or not answer[3]]
    parent, child = decided(wanted, inherited), decided(wanted, answers, fork=True)
    assert parent.allowed or not child.allowed
    assert uses(child.granted) <= uses(parent.granted)
    assert parent.scope == "session" or child.scope == "call"


@thorough
@given(cases())
def test_a_granted_capability_is_listed_once(case):
    wanted, answers, fork = case
    granted = decided(wanted, answers, fork=fork).granted
    assert not [(one, two) for one in granted for two in granted if one != two and includes(one, two)]
    assert len(set(granted)) == len(granted)


@pytest.mark.parametrize(
    ("answers", "allowed", "scope"),
    [
        ([], True, "call"),
        ([("abstain", None, "session", False)], True, "call"),
        ([("allow", None, "session", False)], True, "session"),
        ([("deny", None, "call", False)], False, "call"),
        ([None], False, "call"),
    ],
)
def test_wanting_nothing_needs_no_allow_yet_a_deny_denies(answers, allowed, scope):
    decision = decided([], answers)
    assert (decision.allowed, decision.granted, decision.scope) == (allowed, (), scope)


@pytest.mark.parametrize(
    ("scopes", "scope"),
    [
        (["session"], "session"),
        (["call"], "call"),
        (["session", "session"], "session"),
        (["session", "call"], "call"),
        (["call", "session"], "call"),
    ],
)
def test_a_grant_lasts_only_if_every_hook_that_allows_says_so(scopes, scope):
    answers = [Answer("hook", "allow", scope=one) for one in scopes]
    assert decide(["env:A"], [*answers, Answer("hook", "abstain", scope="session")]).scope == scope


def test_every_capability_wanted_needs_an_allow():
    one, both = Answer("one", "allow", ("env:A",)), Answer("two", "allow", ("env:A", "env:PATH"))
    assert decide(["env:A", "env:PATH"], []).reason == "no policy hook allowed env:A"
    assert decide(["env:A", "env:PATH"], [both, one]).reason == "one did not allow env:PATH"
    assert decide(["env:A", "env:PATH"], [both, Answer("three", "allow")]).granted == ("env:A", "env:PATH")


def test_a_policy_may_answer_with_its_whole_list_of_words():
    words = ("env:HOME", "fs:read:/corpus", "fs:write:/out", "sys:invoke:/mnt/tools/*", "net:connect:a.example:443")
    whole = [Answer("hook", "allow", words)]
    wanted = ["fs:read:/corpus/old", "fs:write:/out/today", "sys:invoke:/mnt/tools/wordcount", "sys:invoke:/mnt/*"]
    assert decide(wanted, whole).granted == ("fs:read:/corpus/old", "fs:write:/out/today", "sys:invoke:/mnt/tools/*")
    assert decide(["fs:read:/"], whole).granted == ("fs:read:/corpus", "fs:read:/out")
    assert decide(["net:connect:*", "env:HOME"], whole).granted == ("env:HOME", "net:connect:a.example:443")
    assert decide(["env:HOME", "env:PATH"], whole).reason == "hook did not allow env:PATH"


def test_what_several_hooks_allow_is_what_each_of_them_allows():
    one, two = Answer("one", "allow", ("fs:read:/a",)), Answer("two", "allow", ("fs:read:/a/b", "fs:read:/c"))
    assert decide(["fs:read:/"], [one, two]).granted == ("fs:read:/a/b",)
    assert decide(["fs:read:/"], [one, Answer("all", "allow"), Answer("none", "abstain")]).granted == ("fs:read:/a",)
    apart = Answer("apart", "allow", ("fs:read:/c",))
    assert decide(["fs:read:/"], [one, apart]).reason == "of fs:read:/ there is no part that all policy hooks allowed"


def test_the_allow_of_a_hook_that_may_not_grant_narrows_all_the_same():
    own = Answer("own", "allow", ("fs:read:/a",), may_grant=False)
    assert decide(["fs:read:/"], [Answer("inherited", "allow"), own]).granted == ("fs:read:/a",)


def test_no_more_is_granted_than_a_list_may_hold():
    many = [f"fs:read:/many/{n}" for n in range(256)]
    assert len(decide(["fs:read:/"], [Answer("hook", "allow", tuple(many))]).granted) == 256
    decision = decide(["fs:read:/wide", *many[:2]], [Answer("hook", "allow", ("fs:read:/many", *below("/wide", 255)))])
    assert (decision.allowed, decision.granted) == (False, ())
    assert decision.reason == "what was allowed is more than 256 capabilities"


def test_all_hooks_together_answer_with_a_number_of_words():
    whole = Answer("hook", "allow", tuple(below("/a", 256)))
    assert decide(["fs:read:/"], [whole] * 16).allowed
    decision = decide(["fs:read:/"], [whole] * 17)
    assert not decision.allowed
    assert decision.reason == "the policy hooks answered more than 4096 capabilities in all"


def below(folder, count):
    return [f"fs:read:{folder}/{n}" for n in range(count)]


def test_what_goes_on_is_ended_by_an_allow_of_less():
    less = [Answer("new", "allow", ("env:A",), may_grant=False)]
    assert decide_again(["env:A", "env:PATH"], less).reason == "new did not allow env:PATH, which was granted before"
    assert decide_again(["env:A"], less).granted == ("env:A",)
    assert decide_again(["env:A"], [Answer("new", "abstain", ()), Answer("newer", "allow")]).granted == ("env:A",)
    assert decide_again(["env:A"], [Answer("new", "deny", reason="no")]).reason == "new: no"


def test_an_allow_may_be_narrowed_to_something_below():
    answer = Answer("hook", "allow", ("fs:read:/a/b", "fs:read:/a/ab"))
    assert decide(["fs:write:/a"], [answer]).granted == ("fs:read:/a/b", "fs:read:/a/ab")


def test_a_fork_without_inherited_hooks_can_allow_nothing():
    assert not decide(["env:A"], [Answer("own", "allow", may_grant=False)]).allowed


def test_a_denial_names_the_hook_and_its_reason():
    answers = [Answer("one", "allow"), Answer("two", "deny", reason="not on Sundays"), Answer("three", "deny")]
    assert decide(["env:A"], answers).reason == "two: not on Sundays"
    assert decide([], [Answer("three", "deny")]).reason == "three: denied"
    assert decide(["env:A"], []).reason == "no policy hook allowed env:A"


def test_an_allow_has_the_reasons_of_the_hooks_that_allowed():
    answers = [Answer("a", "allow", reason="one"), Answer("b", "allow"), Answer("c", "allow", reason="two")]
    assert decide(["env:A"], answers).reason == "one; two"


# --- answers


def read(value, *, may_grant=True):
    return read_answer(value, "hook", BASE, may_grant=may_grant)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"decision": "allow"}, Answer("hook", "allow")),
        ({"decision": "deny", "reason": "no"}, Answer("hook", "deny", reason="no")),
        ({"decision": "deny", "reason": "r" * 1024}, Answer("hook", "deny", reason="r" * 1024)),
        ({"decision": "abstain"}, Answer("hook", "abstain")),
        ({"decision": "allow", "scope": "session"}, Answer("hook", "allow", scope="session")),
        ({"decision": "allow", "scope": "call"}, Answer("hook", "allow")),
        ({"decision": "allow", "scope": None, "reason": None}, Answer("hook", "allow")),
        ({"decision": "allow", "capabilities": []}, Answer("hook", "allow", ())),
        ({"decision": "allow", "capabilities": ["env:A"]}, Answer("hook", "allow", ("env:A",))),
        ({"decision": "allow", "capabilities": ["fs:read:/data/x/.."]}, Answer("hook", "allow", ("fs:read:/data",))),
        ({"decision": "allow", "capabilities": ["fs:read:../data/y"]}, Answer("hook", "allow", ("fs:read:/data/y",))),
        ({"decision": "allow", "unknown": {"field": 1}}, Answer("hook", "allow")),
    ],
)
def test_an_answer_is_read(value, answer):
    assert read(value) == answer


def test_an_answer_says_whether_its_hook_may_grant():
    assert not read({"decision": "allow"}, may_grant=False).may_grant


def test_a_python_hook_may_answer_with_a_tuple():
    assert read({"decision": "allow", "capabilities": ("env:A",)}).capabilities == ("env:A",)


MALFORMED = [
    (None, "expected an object with a decision, got NoneType"),
    (True, "expected an object with a decision, got bool"),
    ("allow", "expected an object with a decision, got str"),
    (["allow"], "expected an object with a decision, got list"),
    ({}, "decision: expected allow, deny or abstain, got None"),
    ({"allow": True}, "decision: expected allow, deny or abstain, got None"),
    ({"decision": True}, "decision: expected allow, deny or abstain, got True"),
    ({"decision": "Allow"}, "decision: expected allow, deny or abstain, got 'Allow'"),
    ({"decision": "allow "}, "decision: expected allow, deny or abstain, got 'allow '"),
    ({"decision": ["allow"]}, "decision: expected allow, deny or abstain, got ['allow']"),
    ({"decision": "x" * 500}, "decision: expected allow, deny or abstain, got 'xxx"),
    ({"decision": "allow", "scope": "forever"}, "scope: expected call or session, got 'forever'"),
    ({"decision": "allow", "scope": ["session"]}, "scope: expected call or session, got ['session']"),
    ({"decision": "allow", "reason": 5}, "reason: expected text, got int"),
    ({"decision": "allow", "capabilities": "env:A"}, "capabilities: expected a list, got str"),
    ({"decision": "allow", "capabilities": {"env:A": 1}}, "capabilities: expected a list, got dict"),
    ({"decision": "allow", "capabilities": True}, "capabilities: expected a list, got bool"),
    ({"decision": "allow", "capabilities": [5]}, "capabilities[0]: expected text, got int"),
    ({"decision": "allow", "capabilities": ["env:A", None]}, "capabilities[1]: expected text, got NoneType"),
    ({"decision": "deny", "capabilities": [5]}, "capabilities[0]: expected text, got int"),
]


@pytest.mark.parametrize(("value", "fault"), MALFORMED)
def test_a_malformed_answer_is_refused(value, fault):
    with pytest.raises(ValueError, match="expected|wanted") as caught:
        read(value)
    assert str(caught.value).startswith(fault)
    assert len(str(caught.value)) < 120


def test_an_unknown_capability_in_an_answer_is_named_by_its_place():
    with pytest.raises(ValueError, match=r"^capabilities\[1\]: expected one of fs:read:PATH"):
        read({"decision": "allow", "capabilities": ["env:A", "gpu:use"]})


def test_an_allow_of_null_is_malformed():
    with pytest.raises(ValueError, match="capabilities: expected a list, got NoneType"):
        read({"decision": "allow", "capabilities": None})


@pytest.mark.parametrize("part", [{"reason": "\ud800"}, {"capabilities": ["x-a:\ud800"]}])
def test_an_answer_that_is_not_unicode_text_is_malformed(part):
    with pytest.raises(ValueError, match="surrogate|expected"):
        read({"decision": "allow", **part})


answer_like = st.fixed_dictionaries(
    {},
    optional={
        "decision": st.sampled_from(["allow", "deny", "abstain", "allow"]) | json_values,
        "scope": st.sampled_from(["call", "session"]) | json_values,
        "reason": st.text(max_size=3) | json_values,
        "capabilities": st.lists(family_words | st.text(max_size=3) | json_values, max_size=3) | json_values,
        "more": json_values,
    },
)


@thorough
@given(json_values | answer_like, wanted_lists())
@example({"decision": "allow", "capabilities": None}, ["env:A"])
def test_arbitrary_json_is_never_read_as_an_allow(value, wanted):
    try:
        answer = read(value)
    except ValueError:
        return
    assert well_formed(value)
    assert answer.decision == value["decision"]
    decision = decide(wanted, [answer])
    assert decision.allowed <= (value["decision"] == "allow" or (value["decision"] == "abstain" and not wanted))
    assert decision.scope == "call" or value["scope"] == "session"


@thorough
@given(wanted_lists(1), st.data())
def test_every_well_formed_answer_is_understood(wanted, data):
    decision, words, scope, _ = data.draw(answers_to(wanted))
    value = {"decision": decision, "scope": scope, "reason": "because"}
    if words is not None:
        value["capabilities"] = words
    expected = Answer("hook", decision, None if words is None else spelled(words), scope, "because")
    assert read(json.loads(json.dumps(value))) == expected


# --- what runs already


@pytest.mark.parametrize(
    ("running", "granted", "lost"),
    [
        ([], [], None),
        (["env:A"], ["env:A"], None),
        (["env:A", "fs:read:/a"], ["env:A"], "fs:read:/a"),
        (["fs:read:/a"], ["fs:read:/"], None),
        (["fs:read:/a"], ["fs:read:/a/b"], "fs:read:/a"),
        (["fs:write:/a"], ["fs:read:/a"], "fs:write:/a"),
        (["sys:invoke"], [], None),
        (["sys:invoke"], ["sys:invoke:/mnt/tools/a"], None),
        (["x-a:b"], [], "x-a:b"),
    ],
)
def test_a_capability_that_a_process_has_can_not_be_withdrawn_for_one_call(running, granted, lost):
    assert narrowed_below(running, granted) == lost


@thorough
@given(wanted_lists(), wanted_lists())
def test_only_system_calls_can_be_narrowed_while_a_module_runs(running, granted):
    kept = all(word.startswith("sys:") or any(includes(grant, word) for grant in granted) for word in running)
    assert (narrowed_below(running, spelled(granted)) is None) is kept


ALLOW = {"decision": "allow"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({**ALLOW, "reason": "r" * 1025}, "reason: expected at most 1024 characters, got 1025"),
        ({**ALLOW, "capabilities": ["env:A"] * 257}, "capabilities: expected at most 256, got 257"),
        ({**ALLOW, "capabilities": ["env:" + "A" * 5000]}, "capabilities[0]: expected at most 4352 characters"),
    ],
)
def test_an_answer_has_a_size(answer, problem):
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        read_answer(answer, "hook", BASE, may_grant=True)


def test_the_paths_of_a_modules_answer_are_taken_by_their_letters(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    narrowed = {**ALLOW, "capabilities": [f"fs:read:{tmp_path}/link"]}
    assert read_answer(narrowed, "hook", None, may_grant=True).capabilities == (f"fs:read:{tmp_path}/link",)
    assert read_answer(narrowed, "hook", tmp_path, may_grant=True).capabilities == ("fs:read:/etc",)
    with pytest.raises(ValueError, match="expected an absolute path"):
        read_answer({**ALLOW, "capabilities": ["fs:read:link"]}, "hook", None, may_grant=True)


def test_the_longest_lists_are_decided_in_no_time():
    wanted = ["fs:read:/" + "/".join("x" * (n + 1)) for n in range(256)]
    narrowed = [f"{wanted[-1]}/{n}" for n in range(256)]
    began = time.process_time()
    answer = read_answer({**ALLOW, "capabilities": narrowed}, "hook", None, may_grant=True)
    decision = decide(wanted, [answer])
    assert time.process_time() - began < 5  # of CPU: a slow machine, or one that counts each call, needs more than one
    assert (decision.allowed, decision.granted) == (True, tuple(narrowed))
