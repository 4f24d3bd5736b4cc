import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.strategies import json_values, thorough

from amplifier_core import BadRequest, Plan


def test_a_plan_is_a_goal_and_inputs():
    assert Plan.from_mapping({"goal": "count", "inputs": {"n": 1}}) == Plan("count", {"n": 1})
    assert Plan.from_mapping({"goal": "count", "inputs": None}) == Plan("count")
    assert Plan.from_mapping({"goal": "count"}) == Plan("count") == Plan("count", MappingProxyType({}))


def test_unknown_fields_of_a_plan_are_ignored_and_named():
    plan = Plan.from_mapping({"goal": "count", "input": 1, "more": 2})
    assert plan == Plan("count")
    assert plan.unknown == ("input", "more")


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


FAULTS: list[tuple] = [
    (None, "plan: expected an object, got NoneType"),
    ("count", "plan: expected an object, got str"),
    ([["goal", "count"]], "plan: expected an object, got list"),
    ({}, "plan.goal: expected text, got nothing"),
    ({"inputs": {}}, "plan.goal: expected text, got nothing"),
    ({"goal": None}, "plan.goal: expected text, got NoneType"),
    ({"goal": True}, "plan.goal: expected text, got bool"),
    ({"goal": ["count"]}, "plan.goal: expected text, got list"),
    ({"goal": "\ud800"}, "plan.goal: expected Unicode text, got a lone surrogate"),
    ({"goal": "x", "inputs": "{}"}, "plan.inputs: expected an object, got str"),
    ({"goal": "x", "inputs": [["a", 1]]}, "plan.inputs: expected an object, got list"),
    ({"goal": "x", "inputs": {"a": float("nan")}}, "plan.inputs.a: expected a finite number, got nan"),
    ({"goal": "x", "inputs": {"a": [{1}]}}, "plan.inputs.a[0]: expected JSON, got set"),
    ({"goal": "x", "inputs": {1: 2}}, "plan.inputs: expected text as a key, got int"),
    ({"goal": "x", "inputs": {"a": MappingProxyType({})}}, "plan.inputs.a: expected JSON, got mappingproxy"),
]


@pytest.mark.parametrize(("mapping", "fault"), FAULTS)
def test_a_plan_that_does_not_fit_is_refused_with_its_path(mapping, fault):
    with pytest.raises(BadRequest) as caught:
        Plan.from_mapping(mapping)
    assert caught.value.message == fault


def test_inputs_nested_too_deeply_are_refused_with_their_path():
    with pytest.raises(BadRequest, match=r"^bad_request: plan\.inputs: nested more than"):
        Plan("x", {"a": nested(100_000)})


@thorough
@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_a_plan_keeps_a_copy_of_its_inputs(goal, inputs):
    plan = Plan(goal, inputs)
    assert (plan.goal, json.dumps(plan.inputs)) == (goal, json.dumps(inputs))
    assert plan.inputs is not inputs


@thorough
@given(json_values | st.fixed_dictionaries({"goal": st.text() | json_values}, optional={"inputs": json_values}))
def test_any_json_is_a_plan_or_one_line(value):
    try:
        assert isinstance(Plan.from_mapping(value), Plan)
    except BadRequest as error:
        message = error.message
    else:
        return
    assert len(message.splitlines()) == 1
