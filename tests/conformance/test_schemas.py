"""The JSON Schemas, the text of the protocol and its examples say the same, and the schemas can fail."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from amplifier_core import KernelError
from amplifier_core._protocol.message import result_of
from amplifier_core._syscalls.table import SystemCalls
from amplifier_core.hookspecs import UNSET, NotJson, decode_message

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "amplifier_core" / "PROTOCOL.md").read_text(encoding="utf-8")
INSTANCES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("instances.json").read_text("utf-8"))
URN = "urn:amplifier:protocol:1:"

SCHEMAS: dict[str, dict[str, Any]] = {
    file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((files("amplifier_core") / "schemas").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema, default_specification=DRAFT202012)) for schema in SCHEMAS.values()
)

# Every example of the text, in its order, with the schema that it shows. A new example needs a line here.
JSON_EXAMPLES = ["descriptor", "reply", "reply", "reply", "resume"]
STDIO_EXAMPLES = [
    ("→", "stdio-request"),
    ("←", "stdio-message"),
    ("→", "stdio-request"),
    ("←", "stdio-message"),
    ("→", "stdio-request"),
    ("←", "stdio-message"),
    ("←", "stdio-message"),
    ("→", "stdio-request"),
    ("→", "cancel"),
    ("←", "stdio-message"),
]

# The names of the fields that take any JSON, and of those whose members the protocol leaves to others.
ANY_JSON = {"chunk", "result", "state", "value"}
OPEN_OBJECTS = {"args", "data", "details", "fragments", "inputs", "outputs"}

VALUES: dict[str, Any] = {  # one of each type
    "null": None,
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "string": "x",
    "array": [],
    "object": {},
}
TYPES = Draft202012Validator.TYPE_CHECKER

Place = tuple[str | int, ...]


def at(reference: str) -> dict[str, Any]:
    """Return the schema at `name` or `name#/pointer`."""
    schema: dict[str, Any] = REGISTRY.resolver().lookup(URN + reference).contents
    return schema


def faults(reference: str, instance: object) -> list[str]:
    """Return the errors of an instance under the schema at `name` or `name#/pointer`."""
    validator = Draft202012Validator({"$ref": URN + reference}, registry=REGISTRY)
    return [error.message for error in validator.iter_errors(instance)]


def subschemas(schema: object) -> Iterator[dict[str, Any]]:
    """Walk all objects of a schema, itself included."""
    if isinstance(schema, dict):
        yield schema
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from subschemas(inner)


# --- the schemas by themselves


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_valid_under_the_metaschema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_known_by_its_file_name_and_cites_its_section(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$id"] == URN + name
    assert "\n" not in schema["title"] + schema["description"]
    assert re.search(r"\(sections? \d", schema["description"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_reference_resolves(name: str) -> None:
    resolver = REGISTRY.resolver(base_uri=URN + name)
    for schema in subschemas(SCHEMAS[name]):
        if isinstance(reference := schema.get("$ref"), str):
            assert isinstance(resolver.lookup(reference).contents, dict), reference


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_definition_is_used(name: str) -> None:
    used = {
        (URN + owner if reference.startswith("#") else "") + reference
        for owner, schema in SCHEMAS.items()
        for inner in subschemas(schema)
        if isinstance(reference := inner.get("$ref"), str)
    }
    used |= {URN + reference for reference in INSTANCES}  # a shape that no other one uses is at least tested
    used.add(URN + "syscalls#/$defs/invoke.result")  # any JSON: nothing to test
    assert {f"{URN}{name}#/$defs/{key}" for key in SCHEMAS[name].get("$defs", {})} <= used


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_schema_refuses_fields_of_a_later_version_but_those_of_system_calls(name: str) -> None:
    closed = [key for key in SCHEMAS[name].get("$defs", {}) if key.endswith(".args")]
    assert len(closed) == (len(at("syscalls#/$defs/name")["enum"]) if name == "syscalls" else 0)
    closing = [schema for schema in subschemas(SCHEMAS[name]) if schema.get("additionalProperties") is False]
    assert closing == [SCHEMAS[name]["$defs"][key] for key in closed]
    for schema in subschemas(SCHEMAS[name]):
        assert not {"unevaluatedProperties", "maxProperties"} & schema.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_patterns_mean_the_same_in_every_engine(name: str) -> None:
    """No lookaround and no class escapes: Go and Rust lack them, or differ from ECMAScript. All are anchored."""
    patterns = [inner["pattern"] for inner in subschemas(SCHEMAS[name]) if isinstance(inner.get("pattern"), str)]
    for pattern in patterns:
        assert not re.search(r"\(\?|\\[dDwWsSbBpPuxAZ]", pattern), pattern
        assert re.fullmatch(r"\^.*\$|\[[^\]]*\]", pattern), pattern


# --- instances that they accept and refuse


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(reference, instance, id=f"{reference}-{name}")
        for reference, sets in INSTANCES.items()
        for name, instance in (sets[kind] if kind == "invalid" else dict(enumerate(sets[kind]))).items()
    ]


def test_every_shape_has_instances_of_both_sorts() -> None:
    shapes = SCHEMAS.keys() - {"terms"}
    results = {f"syscalls#/$defs/{name}" for name in at("syscalls")["$defs"] if name.endswith(".result")}
    assert INSTANCES.keys() >= shapes | results - {"syscalls#/$defs/invoke.result"}
    assert all(sets["valid"] and sets["invalid"] for sets in INSTANCES.values())


@pytest.mark.parametrize(("reference", "instance"), cases("valid"))
def test_valid_instance_is_accepted(reference: str, instance: object) -> None:
    assert faults(reference, instance) == []


@pytest.mark.parametrize(("reference", "instance"), cases("invalid"))
def test_invalid_instance_is_refused(reference: str, instance: object) -> None:
    assert faults(reference, instance)


@pytest.mark.parametrize("reference", INSTANCES)
def test_a_missing_required_field_is_refused(reference: str) -> None:
    required = INSTANCES[reference].get("required", [])
    assert required == at(reference).get("required", [])
    for instance in INSTANCES[reference]["valid"]:
        for field in required:
            assert faults(reference, {key: value for key, value in instance.items() if key != field}), field


def places(reference: str, instance: Any, path: Place = ()) -> Iterator[Place]:
    """Walk the places in an instance that the protocol defines."""
    yield path
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    named = reference == "syscalls" and path == ("args",)  # the args of the system call, not of the op that it invokes
    if name in ANY_JSON or (name in OPEN_OBJECTS and not named):
        return
    if isinstance(instance, dict | list):
        for key in instance if isinstance(instance, dict) else range(len(instance)):
            yield from places(reference, instance[key], (*path, key))


def value_at(instance: Any, path: Place) -> Any:
    for key in path:
        instance = instance[key]
    return instance


def replaced(instance: Any, path: Place, value: object) -> Any:
    """Return a copy of an instance with another value at a place."""
    if not path:
        return value
    copy = instance.copy()
    copy[path[0]] = replaced(instance[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("reference", INSTANCES)
def test_a_value_of_a_type_that_no_valid_instance_has_there_is_refused(reference: str) -> None:
    shown: dict[Place, set[str]] = {}
    for instance in INSTANCES[reference]["valid"]:
        for path in places(reference, instance):
            types = {name for name in VALUES if TYPES.is_type(value_at(instance, path), name)}
            shown.setdefault(anywhere(path), set()).update(types | ({"integer"} if "number" in types else set()))
    for instance in INSTANCES[reference]["valid"]:
        for path in places(reference, instance):
            if value_at(instance, path) is None and path[-1:] in {(field,) for field in ANY_JSON}:
                continue  # it may stand for what is not there
            for name in VALUES.keys() - shown[anywhere(path)]:
                refused = faults(reference, replaced(instance, path, VALUES[name]))
                assert bool(refused) != (path[-1:] in {(field,) for field in ANY_JSON}), (path, name)


def anywhere(path: Place) -> Place:
    """Return a place without its positions in lists."""
    return tuple(0 if isinstance(key, int) else key for key in path)


@pytest.mark.parametrize("reference", [reference for reference in INSTANCES if "properties" in at(reference)])
def test_the_first_valid_instance_shows_every_field(reference: str) -> None:
    assert INSTANCES[reference]["valid"][0].keys() >= at(reference)["properties"].keys()


def is_system_call(instance: dict[str, Any]) -> bool:
    return instance.get("name") in at("syscalls#/$defs/name")["enum"]


@pytest.mark.parametrize("instance", [each for each in INSTANCES["syscalls"]["valid"] if is_system_call(each)], ids=str)
def test_an_argument_that_a_system_call_does_not_have_is_refused(instance: dict[str, Any]) -> None:
    assert faults("syscalls", {**instance, "args": {**(instance.get("args") or {}), "x_unknown": 1}})


def with_unknown_fields(instance: object) -> object:
    """Add an unknown field to every object, at any depth."""
    if isinstance(instance, list):
        return [with_unknown_fields(item) for item in instance]
    if isinstance(instance, dict):
        closed = "args" if is_system_call(instance) else ""
        inner = {
            # maps from the user's own keys to text take no field of another type
            key: value if key in {"env", "headers", "flawed", closed} else with_unknown_fields(value)
            for key, value in instance.items()
        }
        return {**inner, "x_unknown": {"field": "unknown"}}
    return instance


@pytest.mark.parametrize(("reference", "instance"), cases("valid"))
def test_unknown_fields_are_ignored(reference: str, instance: object) -> None:
    assert faults(reference, with_unknown_fields(instance)) == []


# --- what the kernel accepts and refuses

PARTS_ARE_JUDGED_ONE_BY_ONE = {  # an event that is refused is dropped, a system call that is has an error in `results`
    "an event without name",
    "a name and a line end",
    "an event of the kernel's own",
    "a request to the policy",
    "an event without namespace",
    "an event for all hooks",
    "an event with a list as data",
    "an empty id",  # no request has it
}


def is_message(instance: object) -> bool:
    """Say whether the kernel takes an instance for a chunk or for a reply."""
    try:
        message = decode_message(json.dumps(instance).encode())
    except NotJson:
        return False
    return message.is_reply() or message.chunk is not UNSET


@pytest.mark.parametrize("reference", ["reply", "chunk", "stdio-message"])
def test_the_kernel_takes_for_a_message_what_the_schema_does(reference: str) -> None:
    assert [each for each in INSTANCES[reference]["valid"] if not is_message(each)] == []
    taken = {name for name, instance in INSTANCES[reference]["invalid"].items() if is_message(instance)}
    assert taken - PARTS_ARE_JUDGED_ONE_BY_ONE == set()


def passes(error: dict[str, Any]) -> bool:
    """Say whether an error of a module reaches its caller as it is."""
    try:
        result_of(decode_message(json.dumps({"ok": False, "error": error}).encode()), "a module")
    except KernelError as raised:
        return (raised.code, raised.message) == (error["code"], error["message"])
    except NotJson:
        return False
    return False


def test_the_kernel_takes_for_an_error_what_the_schema_does() -> None:
    assert [error for error in INSTANCES["error"]["valid"] if not passes(error)] == []
    assert [name for name, error in INSTANCES["error"]["invalid"].items() if passes(error)] == []


# --- the examples of the text


def fences(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for marked, text in found if marked == language]


def values(text: str) -> Iterator[Any]:
    """Read JSON values that follow each other."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def test_every_json_example_is_mapped_and_valid() -> None:
    examples = [value for fence in fences("json") for value in values(fence)]
    for reference, example in zip(JSON_EXAMPLES, examples, strict=True):
        assert faults(reference, example) == [], example


def test_every_stdio_line_is_mapped_and_valid() -> None:
    lines = [line.split(" ", 1) for fence in fences("") for line in fence.splitlines()]
    assert [arrow for arrow, _ in lines] == [arrow for arrow, _ in STDIO_EXAMPLES]
    for (_, reference), (_, line) in zip(STDIO_EXAMPLES, lines, strict=True):
        assert faults(reference, json.loads(line)) == [], line


def test_there_is_no_example_in_another_language() -> None:
    assert len(re.findall(r"^```", TEXT, re.MULTILINE)) == 2 * len(fences("json") + fences(""))


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "examples" / "modules").glob("*.json")), ids=lambda file: file.stem
)
def test_descriptor_of_the_examples_is_valid(file: Path) -> None:
    assert faults("descriptor", json.loads(file.read_text(encoding="utf-8"))) == []


# --- the tables and lists of the text


def section(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, number
    return found[0]


def table(number: int) -> dict[str, list[str]]:
    """Read the one table of a section: the first cell of each row, and the others."""
    rows = [re.split(r"\s*(?<!\\)\|\s*", line)[1:-1] for line in section(number).splitlines() if line.startswith("|")]
    assert set(rows[1]) == {"---"}, "one table, with its rule in the second line"
    return {row[0]: row[1:] for row in rows[2:]}


def words(cell: str) -> list[str]:
    """Return the names between backticks."""
    return re.findall(r"`([\w.:]+)`", cell)


def optional(cell: str) -> dict[str, bool]:
    """Return the names between backticks, and whether a question mark follows."""
    return {name: bool(mark) for name, mark in re.findall(r"`(\w+)`(\?)?", cell)}


def braced(cell: str) -> dict[str, bool]:
    """Return the field names of the first shape between backticks, and whether a question mark follows."""
    shape = re.search(r"`([{\[][^`]*)`", cell)
    assert shape, cell
    names = r'(?<!: )"(\w+)"(\?)?' if '"' in shape[1] else r"(\w+)(\?)?"
    return {name: bool(mark) for name, mark in re.findall(names, shape[1])}


def passage(number: int, start: str, end: str) -> str:
    found = re.search(re.escape(start) + "(.*?)" + re.escape(end), section(number), re.DOTALL)
    assert found, start
    return found[1]


def agrees(reference: str, fields: dict[str, bool]) -> None:
    """Compare the fields of the text (name, and whether it is optional) with a schema."""
    schema = at(reference)
    assert set(schema.get("properties", {})) == set(fields)
    assert set(schema.get("required", [])) == {name for name, is_optional in fields.items() if not is_optional}


def test_descriptor_table() -> None:
    rows = {words(field)[0]: cells for field, cells in table(1).items()}
    assert {required for required, _ in rows.values()} == {"yes", "no"}
    agrees("descriptor", {field: required == "no" for field, (required, _) in rows.items()})
    assert words(rows["kind"][1]) == at("terms#/$defs/kind")["enum"]
    assert "`" + at("terms#/$defs/name")["pattern"].strip("^$") + "`" in rows["name"][1]
    assert optional(rows["limits"][1]).keys() == at("descriptor")["properties"]["limits"]["properties"].keys()
    transports = dict(re.findall(r"`(\w+)`: ((?:`\w+`(?:, )?)+)", rows["transport"][1]))
    assert transports.keys() == {"stdio", "http"}
    for transport, keys in transports.items():
        assert set(words(keys)) == at(f"descriptor#/$defs/{transport}")["properties"].keys()


def test_operations_table() -> None:
    rows = {words(field)[0]: cells for field, cells in table(2).items()}
    assert list(rows) == at("stdio-request")["properties"]["method"]["enum"]
    assert rows["health"][0] == rows["describe"][0] == "none"
    agrees("health", braced(rows["health"][1]))
    agrees("describe", braced(rows["describe"][1]))
    agrees("invoke-params", optional(rows["invoke"][0]))


def test_error_table() -> None:
    assert [word for code in table(5) for word in words(code)] == at("error#/$defs/kernel_code")["enum"]
    shape = re.search(r"`\{[^`]*\}`", section(5))
    assert shape
    agrees("error", {name: bool(mark) for name, mark in re.findall(r'"(\w+)"(\?)?:', shape[0])})
    assert "`" + at("error#/$defs/own_code")["pattern"].strip("^$") + "`" in section(5)


def test_capability_table() -> None:
    forms = [form for cell in table(6) for form in re.findall(r"`([^`]+)`", cell)]
    meant = {"PATH": "./corpus", "HOST": "example.org", "PORT": "443", "NAME": "HOME", "ANYTHING": "acme", "…": "gpu"}
    examples = [re.sub("|".join(meant), lambda name: meant[name[0]], form) for form in forms if "[" not in form]
    assert [form for form in forms if "[" in form] == ["sys:NAME[:PATTERN]"]
    examples += [f"sys:{words(call)[0]}{pattern}" for call in table(8) for pattern in ("", ":/mnt/tools/*")]
    for example in examples:
        assert faults("terms#/$defs/capability", example) == [], example
    for alternative in at("terms#/$defs/capability")["anyOf"]:
        assert any(re.search(alternative["pattern"], example) for example in examples), alternative


def test_policy_request_in_the_text() -> None:
    fields = re.sub(r"\(.*?\)", "", passage(6, "The event's `data` has", "Each answers"))
    assert words(fields) == list(at("policy-request")["properties"])


def test_policy_decision_in_the_text() -> None:
    shape = passage(6, "Each answers `", "`;")
    agrees("policy-decision", {name: bool(mark) for name, mark in re.findall(r'"(\w+)"(\?)?:', shape)})
    properties = at("policy-decision")["properties"]
    choices = re.findall(r'"(\w+)"(?!\??:)', shape)
    assert [*choices, None] == properties["decision"]["enum"] + properties["scope"]["enum"]


def test_event_table() -> None:
    rows = {name: cells for field, cells in table(7).items() for name in words(field)}
    agrees("event", {name: required == "no" for name, (required, _) in rows.items()})


def test_taxonomy() -> None:
    names = [word for word in words(passage(7, "Taxonomy", "**Start and end.**")) if ":" in word]
    assert names == at("event#/$defs/taxonomy")["enum"]
    emitted = re.search(r"`([^`]*)` and `([^`]*)` are open to modules", section(8))
    assert emitted
    assert emitted.groups() == ("artifact:*", "context:pre_compact|post_compact")
    assert set(at("event#/$defs/open")["enum"]) == {name for name in names if re.match(r"artifact:|context:p", name)}


def test_mount_paths() -> None:
    folders = re.findall(r"`/mnt/(\w+)`", passage(8, "Mount paths:", ". "))
    for term in ("mount_path", "module_path"):
        assert f"^/mnt/({'|'.join(folders)})" in at(f"terms#/$defs/{term}")["pattern"]


def test_system_calls_table() -> None:
    rows = {words(field)[0]: cells for field, cells in table(8).items()}
    assert list(rows) == at("syscalls#/$defs/name")["enum"]
    for name, (args, result) in rows.items():
        agrees(f"syscalls#/$defs/{name}.args", optional(args))
        if "{" in result:
            answer = at(f"syscalls#/$defs/{name}.result")
            fields = answer.get("items", answer)
            assert set(fields.get("required", [])) == set(fields.get("properties", {})) == set(braced(result))
    agrees("syscalls#/$defs/session.create.args/properties/plan", braced(rows["session.create"][0]))
    assert at("syscalls#/$defs/describe.result")["$ref"] == URN + "describe"
    assert {branch["if"]["properties"]["name"]["const"] for branch in at("syscalls")["allOf"]} == rows.keys()


def test_the_kernel_has_the_system_calls_and_the_resources_of_the_text() -> None:
    assert list(SystemCalls._table) == [words(field)[0] for field in table(8)]
    for name, row in SystemCalls._table.items():
        assert set(row.args) == at(f"syscalls#/$defs/{name}.args")["properties"].keys()
    told = passage(8, "A pattern in `sys:NAME:PATTERN` is held against ", ";")
    resources = {name: row.resource for name, row in SystemCalls._table.items() if row.resource}
    for argument, names in re.findall(r"`(\w+)` \(([^)]*)\)", told):
        assert {name for name, resource in resources.items() if resource == argument} == set(words(names))
    assert set(resources.values()) == set(words(re.sub(r"\([^)]*\)", "", told)))
