"""Functions as operations: schemas, descriptions, validation, and what cannot be an operation."""

import functools

import jsonschema
import pytest
from tests.module_kit import everything

from amplifier_module import Context, Module, ModuleError


@pytest.fixture
def inputs():
    return everything.module.describe()["inputs"]


@pytest.fixture
def outputs():
    return everything.module.describe()["outputs"]


def test_hints_and_docstring_are_the_schema(inputs, outputs):
    assert inputs["count"] == {
        "description": "Count the words of a text.",
        "type": "object",
        "properties": {"text": {"description": "what to count in", "type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    }
    assert outputs["count"] == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_every_schema_is_one_of_2020_12(inputs, outputs):
    for schema in (*inputs.values(), *outputs.values()):
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_schema_tells_types_defaults_and_what_is_optional(inputs, outputs):
    schema = inputs["rich"]
    assert schema["description"] == "Give a place, higher by the number of its tags.\n\nIt has more lines."
    assert schema["required"] == ["place"]
    assert schema["properties"]["deep"] == {"type": "boolean", "default": False}
    assert "default" not in schema["properties"]["tags"]  # a tuple is no JSON: Python keeps it
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"place": {"name": "a"}, "at": "2026-01-01T00:00:00Z"})
    assert not validator.is_valid({"place": {"height": 1}})
    assert not validator.is_valid({"place": {"name": "a"}, "plaice": 1})
    assert outputs["rich"]["properties"]["height"] == {"type": "number", "default": 0.0}


def test_a_type_that_refers_to_itself_keeps_its_definition(inputs):
    validator = jsonschema.Draft202012Validator(inputs["total"])
    assert validator.is_valid({"tree": {"value": 1, "children": [{"value": 2}]}})
    assert not validator.is_valid({"tree": {"value": 1, "children": [{"value": "2"}]}})


def test_a_result_that_refers_to_itself_does_too():
    module = Module("m")

    @module.op
    def grow() -> everything.Tree:
        return everything.Tree(1)

    schema = module.describe()["outputs"]["grow"]
    assert schema["$ref"] == "#/$defs/Tree"
    assert jsonschema.Draft202012Validator(schema).is_valid({"value": 1, "children": [{"value": 2}]})


def test_the_context_is_no_argument(inputs):
    assert "context" not in inputs["noisy"]["properties"]


def test_an_event_may_bring_more_than_it_does_today():
    module = Module("m", kind="hook")

    @module.op
    async def on_event(event: dict) -> None: ...

    schema = module.describe()["inputs"]["on_event"]
    assert jsonschema.Draft202012Validator(schema).is_valid({"event": {}, "more": 1})


def test_a_description_names_the_version_of_the_protocol():
    assert Module("m").describe()["protocol"] == 1


def test_the_function_stays_what_it_was():
    assert everything.count("a b c") == {"words": 3}


def test_a_method_can_be_an_operation():
    class Counter:
        def count(self, text: str) -> int:
            return len(text)

    module = Module("m")
    module.op(Counter().count)
    assert list(module.describe()["inputs"]["count"]["properties"]) == ["text"]


class Opaque: ...


def unknown_type(x: Opaque): ...


def unknown_name(x: "Nowhere"): ...  # type: ignore[name-defined]  # noqa: F821


def many(*texts: str): ...


def position(text: str, /): ...


def chunks():
    yield 1


async def chunks_async():
    yield 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (unknown_type, "unknown_type: its hints make no JSON Schema"),
        (unknown_name, "its hints cannot be read: name 'Nowhere' is not defined"),
        (many, r"many: \*texts: str: expected a parameter that can be given by its name"),
        (position, "position: text: str: expected a parameter that can be given by its name"),
        (chunks, r"chunks: expected a function, got a generator: context.chunk\(\) sends chunks"),
        (chunks_async, "chunks_async: expected a function, got a generator"),
    ],
)
def test_what_cannot_be_an_operation_is_refused_when_it_is_made(function, problem):
    with pytest.raises(TypeError, match=problem):
        Module("m").op(function)


def test_a_partial_is_refused_too():
    with pytest.raises(TypeError, match="its hints cannot be read"):
        Module("m").op(name="x")(functools.partial(everything.count, "a"))


def test_two_operations_cannot_have_one_name():
    module = Module("m")
    module.op(everything.count)
    with pytest.raises(ValueError, match="'count': expected a name of at most 256 characters that no other operation"):
        module.op(everything.count)


def test_stateless_is_for_async_functions():
    with pytest.raises(TypeError, match="count: stateless is for an async function"):
        Module("m").op(stateless=True)(everything.count)


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("No Name", "tool", r"name: expected \[a-z"),
        ("m", "tolo", "kind: expected one of .*, got 'tolo'"),
    ],
)
def test_a_module_that_cannot_be_described_is_refused(name, kind, problem):
    with pytest.raises(ValueError, match=problem):
        Module(name, kind=kind)


def test_one_capability_is_a_list_of_one():
    assert Module("m", capabilities="sys:mounts").describe()["capabilities"] == ["sys:mounts"]


def test_a_descriptor_has_what_was_said():
    module = Module("m", version="1.0.0", limits={"concurrency": 1})
    assert module.descriptor("https://example.com/m") == {
        "name": "m",
        "kind": "tool",
        "version": "1.0.0",
        "transport": {"type": "http", "url": "https://example.com/m"},
        "capabilities": [],
        "limits": {"concurrency": 1},
    }


def test_an_error_says_its_code_and_message():
    error = ModuleError("own", "text", {"a": 1})
    assert str(error) == "own: text"
    assert error.details == {"a": 1}


def test_what_is_exported_is_documented():
    assert all(each.__doc__ for each in (Module, ModuleError, Context))
