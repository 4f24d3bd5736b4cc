"""examples/tools.py: names that go there and back, lists that interfaces take, calls and what fails in them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from examples import tools as example
from examples.tools import (
    answer_anthropic,
    answer_openai,
    call,
    for_anthropic,
    for_openai,
    function_name,
    make_tool,
    path_and_op,
    tools_of,
)
from hypothesis import example as with_example
from hypothesis import given
from hypothesis import strategies as st

from amplifier_module import Module, ModuleError
from amplifier_transport_inproc import descriptor_of

FILE = Path(example.__file__)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PLACES = ["tools", "agents", "providers"]


@pytest.mark.parametrize(
    ("path", "op", "name"),
    [
        ("/mnt/tools/files", "list", "files__list"),
        ("/mnt/tools/files", "read_all", "files__read_all"),
        ("/mnt/tools/my-files.v2", "list", "my-files_-2e-v2__list"),
        ("/mnt/tools/files", "_private", "files___private"),
        ("/mnt/tools/files", "odd_", "files__odd_-5f-"),
        ("/mnt/agents/editor", "improve", "agents__editor__improve"),
        ("/mnt/tools/agents", "editor__improve", "agents__editor_-5f-_improve"),
    ],
)
def test_a_name_can_be_read(path, op, name):
    assert function_name(path, op) == name
    assert path_and_op(name) == (path, op)


@given(st.sampled_from(PLACES), st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True), st.text(min_size=1))
@with_example("tools", "a_", "_b")
@with_example("tools", "a", "__")
@with_example("agents", "a-_", "_-2e-")
@with_example("tools", "a", "tools__a")
def test_each_name_goes_there_and_back_or_says_that_it_was_cut(place, module, op):
    name = function_name(f"/mnt/{place}/{module}", op)
    assert NAME.fullmatch(name)
    if "_--" in name:
        with pytest.raises(LookupError):
            path_and_op(name)
    else:
        assert path_and_op(name) == (f"/mnt/{place}/{module}", op)


@pytest.mark.parametrize(
    "name", ["", "files", "__", "a__", "__b", "a__b__c__d", "files__odd_", "files list", "a__b_-zz"]
)
def test_what_is_no_name_is_told(name):
    with pytest.raises(LookupError):
        path_and_op(name)


@pytest.fixture
async def mounted(session):
    """A session with a tool, an agent, and a tool that says little of itself."""
    module = Module("text.v2")

    @module.op
    def count(text: str, times: int = 1) -> int:
        """Count the words of a text."""
        return len(text.split()) * times

    @module.op
    def fail(how: str) -> None:
        raise ModuleError("out_of_ink", f"buy some {how}")

    @module.op(name="large")
    def make_large() -> str:
        return "x" * 10_000

    class Silent:
        def describe(self):
            inputs = {"any": True, "x" * 200: {}}
            return {"name": "silent", "kind": "tool", "capabilities": [], "inputs": inputs, "outputs": {}}

        async def invoke(self, op, args, _context):
            return {"op": op, "args": args, "ü": None}

    agent = Module("editor", kind="agent")
    agent.op(count)
    for path, thing in (("tools", module), ("tools", Silent()), ("agents", agent)):
        await session.mount(f"/mnt/{path}", descriptor_of(thing), trusted=True)
    return session


async def test_each_operation_of_each_tool_is_a_function(mounted):
    tools = await tools_of(mounted)
    names = [tool.name for tool in tools]
    assert names[:4] == ["text_-2e-v2__count", "text_-2e-v2__fail", "text_-2e-v2__large", "silent__any"]
    assert all(NAME.fullmatch(name) for name in names)
    assert [tool.name for tool in await tools_of(mounted, ["agent"])] == ["agents__editor__count"]
    assert tools[0].description == "Count the words of a text."
    assert tools[3].description == "any of /mnt/tools/silent"


async def test_both_interfaces_get_schemas_of_objects(mounted):
    tools = await tools_of(mounted)
    openai, anthropic = for_openai(tools), for_anthropic(tools)
    functions = [each["function"] for each in openai]
    assert {each["type"] for each in openai} == {"function"}
    assert [each["name"] for each in functions] == [each["name"] for each in anthropic] == [each.name for each in tools]
    assert [each["parameters"] for each in functions] == [each["input_schema"] for each in anthropic]
    for each in anthropic:
        jsonschema.Draft202012Validator.check_schema(each["input_schema"])
        assert each["input_schema"]["type"] == "object"
        assert each["description"]
    assert functions[0]["parameters"]["required"] == ["text"]
    json.dumps([openai, anthropic])


def test_a_description_is_cut():
    assert len(make_tool("/mnt/tools/x", "y", {"description": "z" * 5000}).description) == 1024


@pytest.mark.parametrize("arguments", ['{"text": "a b", "times": 2}', {"text": "a b", "times": 2}])
async def test_a_call_comes_back_as_text(mounted, arguments):
    tools = await tools_of(mounted)
    assert await call(mounted, tools, "text_-2e-v2__count", arguments) == (True, "4")
    assert await call(mounted, tools, "silent__any", "") == (True, '{"op": "any", "args": {}, "ü": null}')
    (long,) = (tool.name for tool in tools if "_--" in tool.name)
    worked, told = await call(mounted, tools, long, {"a": 1})
    assert worked
    assert json.loads(told)["args"] == {"a": 1}
    worked, told = await call(mounted, tools, "text_-2e-v2__large", {})
    assert told == "x" * 8000 + " … (10000 characters in all)"


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("nothing", "{}", "error: there is no tool 'nothing'; there are text_-2e-v2__count, "),
        ("text_-2e-v2__count", "{", "error: bad_request: the arguments are not JSON: "),
        ("text_-2e-v2__count", "[" * 100_000, "error: bad_request: the arguments are not JSON: "),
        ("text_-2e-v2__count", "[1]", "error: bad_request: the arguments are no object, but list"),
        ("text_-2e-v2__count", "{}", "error: bad_request: missing: text"),
        (
            "text_-2e-v2__count",
            '{"text": "", "txt": 1}',
            "error: bad_request: unknown: txt; known are text, times",
        ),
        ("text_-2e-v2__large", '{"txt": 1}', "error: bad_request: unknown: txt; known are none"),
        ("text_-2e-v2__count", '{"text": 5}', "error: bad_request: args.text: expected str, got int"),
        ("text_-2e-v2__count", '{"text": "\\ud800"}', "error: bad_request: args.text: "),
        ("text_-2e-v2__fail", '{"how": "soon"}', "error: out_of_ink: buy some soon"),
    ],
)
async def test_what_fails_is_text_for_the_model(mounted, name, arguments, told):
    worked, text = await call(mounted, await tools_of(mounted), name, arguments)
    assert not worked
    assert text.startswith(told)


async def test_a_message_of_each_interface_is_answered(mounted):
    tools = await tools_of(mounted)
    functions = [{"name": "text_-2e-v2__count", "arguments": '{"text": "a b"}'}, {"name": "none", "arguments": "{}"}]
    calls = [{"id": f"call_{n}", "type": "function", "function": each} for n, each in enumerate(functions)]
    first, second = await answer_openai(mounted, tools, {"role": "assistant", "content": None, "tool_calls": calls})
    assert first == {"role": "tool", "tool_call_id": "call_0", "content": "2"}
    assert (second["tool_call_id"], second["content"][:5]) == ("call_1", "error")
    assert await answer_openai(mounted, tools, {"role": "assistant", "content": "That is all."}) == []
    uses = [
        {"type": "text", "text": "Let me count."},
        {"type": "tool_use", "id": "use_0", "name": "text_-2e-v2__count", "input": {"text": "a b"}},
        {"type": "tool_use", "id": "use_1", "name": "text_-2e-v2__count", "input": {}},
    ]
    answer = await answer_anthropic(mounted, tools, {"role": "assistant", "content": uses})
    assert answer["role"] == "user"
    assert [(each["tool_use_id"], each["is_error"]) for each in answer["content"]] == [
        ("use_0", False),
        ("use_1", True),
    ]


async def test_what_policy_denies_is_told_to_the_model(mounted):
    async def deny(_event):
        return {"decision": "deny", "reason": "not today"}

    await mounted.register_hook("policy:request", deny)
    worked, told = await call(mounted, await tools_of(mounted), "text_-2e-v2__count", {"text": ""})
    assert not worked
    assert told.startswith("error: forbidden: ")
    assert "not today" in told


def test_it_runs():
    done = subprocess.run([sys.executable, str(FILE)], capture_output=True, text=True, check=True, timeout=60)
    assert "'tool_call_id': 'call_0', 'content': '2'" in done.stdout
    assert "'is_error': True" in done.stdout
