"""The form of a JSON Schema: the library jsonschema is the oracle, and a schema of any size takes bounded time."""

import time

import pytest
from jsonschema import Draft202012Validator

from amplifier_core._protocol.schema import VALUES_MAX, find_flaws

KEYWORDS = sorted({*Draft202012Validator.VALIDATORS, *(
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "contentEncoding", "contentMediaType", "contentSchema",
    "default", "definitions", "deprecated", "description", "else", "examples", "readOnly", "then", "title", "writeOnly",
    "x-unknown",
)})  # fmt: skip
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2.0,
    1.5,
    "a",
    "string",
    [],
    ["a"],
    ["string", "null"],
    ["string", 5],
    [5],
    [True, {}],
    [{"type": "a"}],
    {},
    {"a": 5},
    {"a": True},
    {"a": ["b"]},
    {"a": {"type": "a"}},
    {"type": 5},
    {"type": "object", "properties": {"b": {"items": [1]}}},
]


def fault(schema):
    found: dict[str, str] = {}
    for _ in find_flaws({"inputs": {"op": schema}, "outputs": {}}, found):
        pass
    return found.get("op", "")


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_is_judged_as_the_metaschema_does(keyword):
    metaschema = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    for value in VALUES:
        schema = {keyword: value}
        assert bool(fault(schema)) != metaschema.is_valid(schema), (value, fault(schema))
        assert len(fault(schema).splitlines()) <= 1


def test_a_fault_says_where_it_is():
    schema = {"properties": {"a b": {"anyOf": [True, {"minLength": -1}]}}}
    assert fault(schema) == "inputs: $.properties.a b.anyOf[1].minLength: expected a whole number from 0, got -1"
    name = "x" * 300 + "\n"
    assert fault({"properties": {name: 5}}) == f"inputs: $.properties.{name[:256]}: expected a JSON Schema, got 5"
    assert len(fault({"properties": {"a\nb": 5}}).splitlines()) == 1


@pytest.mark.parametrize("dialect", ["http://json-schema.org/draft-07/schema#", "https://example.org/mine"])
def test_a_schema_in_another_dialect_is_the_modules_business(dialect):
    old = {"items": [{}], "exclusiveMinimum": True}
    assert fault(old)
    assert not fault({"$schema": dialect, **old})
    assert fault({"$schema": "https://json-schema.org/draft/2020-12/schema#", **old})
    assert fault({"$schema": 5})


@pytest.mark.parametrize(
    "make",  # in the test: each worker collects all tests, and would keep the schemas
    [
        lambda: {"properties": {str(n): {} for n in range(VALUES_MAX)}},
        lambda: {"enum": list(range(1_000_000))},
        lambda: {"required": ["a"] * 1_000_000},
        lambda: {"x-unknown": [0] * 1_000_000},
        lambda: {str(n): 0 for n in range(1_000_000)},
        lambda: {"allOf": [{"allOf": [{"allOf": [{} for _ in range(30)]} for _ in range(30)]} for _ in range(30)]},
    ],
    ids=["properties", "enum", "required", "unknown", "keywords", "nested"],
)
def test_a_large_schema_is_flawed_in_bounded_time(make):
    schema = make()
    began = time.process_time()
    assert fault(schema) == "inputs: $: expected at most 10000 keywords and values"
    assert time.process_time() - began < 0.5


def test_a_deep_schema_is_looked_into():
    schema: dict = {"type": 5}
    for _ in range(190):
        schema = {"not": schema}
    assert fault(schema).startswith("inputs: $.not.not.")
    assert not fault({"not": {}})


def test_others_run_between_two_schemas():
    steps = find_flaws({"inputs": {str(n): True for n in range(100)}, "outputs": {"0": {}}}, {})
    assert sum(1 for _ in steps) == 101
