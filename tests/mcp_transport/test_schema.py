"""Checks against the schemas of strangers: they find what is wrong, and they end."""

import time

import pytest

from amplifier_transport_mcp._schema import Schemas

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DOUBLING: dict[str, object] = {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(40)}
DOUBLING["n40"] = {}
SECONDS = 5.0  # far above what is needed, and far below for ever


def check(schema, value):
    return Schemas().check(schema)(value, "args")


@pytest.mark.parametrize(
    ("schema", "value", "fault"),
    [
        ({"type": "object"}, {}, ""),
        (True, {"x": 1}, ""),
        (False, {}, "args: False schema does not allow {}"),
        ({"items": {"items": {"type": "integer"}}}, [[1, "2"]], "args[0][1]: '2' is not of type 'integer'"),
        ({"additionalProperties": False}, {"a": 1}, "args: Additional properties are not allowed ('a' was unexpected)"),
        ({"enum": ["a\nb"]}, "c", "args: 'c' is not one of ['a\\nb']"),
        ({"const": "x" * 500}, 1, "args: '" + "x" * 192 + "…"),
        ({"$schema": DRAFT_7, "items": [{"type": "null"}]}, [1], "args[0]: 1 is not of type 'null'"),
        ({"$schema": "https://example.com/unknown", "type": "array"}, {}, "args: {} is not of type 'array'"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"minimum": 3}}}, 2, "args: 2 is less than the minimum of 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(schema, value, fault):
    assert check(schema, value) == fault


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 64 + "b"),
        ({"patternProperties": {"^(a+)+$": False}, "additionalProperties": False}, {"a" * 64 + "b": 1}),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)]),
        ({"items": {"type": "string"}}, ["x"] * 1_000_000),
        ({"$ref": "#"}, {}),
        ({"$ref": "#/$defs/n0", "$defs": DOUBLING}, {}),
        ({"$ref": "#/$defs/n0", "unevaluatedProperties": False, "$defs": DOUBLING}, {"a": 1}),
        ({"$ref": "https://example.com/schema.json"}, {}),
        ({"type": "nothing"}, {}),
        ({"properties": 5}, {}),
        ({"minimum": "x"}, 1),
    ],
    ids=str.split("pattern patternProperties unique many itself doubling unevaluated remote type shape kind"),
)  # fmt: skip
def test_what_has_no_end_or_no_meaning_is_left_to_the_server(schema, value):
    began = time.process_time()
    assert check(schema, value) == ""
    assert time.process_time() - began < SECONDS


def test_checks_share_dialects_and_each_has_its_steps():
    schemas = Schemas()
    many, few = schemas.check({"items": {"type": "string"}}), schemas.check({"type": "string"})
    assert many(["x"] * 100_000, "a") == ""
    assert few(1, "a") == "a: 1 is not of type 'string'"
