import asyncio
import json
import sys
import time

import pytest
from tests.core.scripted import SCRIPTED, scripted

from amplifier_core import BadRequest, Forbidden, Internal, KernelError, ModuleDescriptor, Timeout, Unreachable
from amplifier_core.hookspecs import TRANSPORTS

LIAR = """
import json, sys
told = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    result = told[request["method"]]
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""
HEALTH = {"status": "ok"}
TRUE = {"name": "liar", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}


def liar(describe, *, health=HEALTH, capabilities=(), **fields):
    told = json.dumps({"health": health, "describe": describe})
    command = [sys.executable, "-c", LIAR, told]
    return ModuleDescriptor.from_mapping(
        {
            "name": "liar",
            "kind": "tool",
            "capabilities": list(capabilities),
            "transport": {"type": "stdio", "command": command},
            **fields,
        }
    )


def python(code, **transport):
    return {
        "name": "m",
        "kind": "tool",
        "capabilities": [],
        "transport": {"type": "stdio", "command": [sys.executable, "-c", code], **transport},
    }


async def allow_all(event):
    return {"decision": "allow"}


async def test_mount_verifies_and_records_it(session, module, events):
    mounted = await session.mount("/mnt/tools", module("echo.py", version="0.1.0"), trusted=True)
    assert mounted == {"name": "echo", "path": "/mnt/tools/echo"}
    (add,) = events("mount:add")
    assert (add["module"], add["status"]) == ("/mnt/tools/echo", "ok")
    assert add["data"] == {"kind": "tool", "version": "0.1.0", "transport": "stdio", "capabilities": []}
    assert add["duration_ms"] > 0
    assert (await session.mounts())[0]["version"] == "0.1.0"


async def test_the_decision_stands_in_the_log_before_anything_runs(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    names = [event["event"] for event in events()]
    assert names == ["session:start", "policy:decision", "module:start", "mount:add"]
    (decision, start, add) = events()[1:]
    assert decision["request_id"] == start["request_id"] == add["request_id"]
    assert decision["data"]["trusted"] is True


async def test_a_module_without_isolation_needs_the_embedders_trust(session, module, events):
    with pytest.raises(Forbidden, match="trusted=True"):
        await session.mount("/mnt/tools", module("echo.py"))
    assert [event["event"] for event in events()] == ["session:start", "mount:add"]


async def test_a_descriptor_can_not_make_itself_trusted(session, module):
    with pytest.raises(Forbidden):
        await session.mount("/mnt/tools", module("echo.py", trusted=True))


@pytest.mark.parametrize(
    "path", ["/mnt", "/mnt/", "/mnt/tools/", "/mnt/tools/x", "/tools", "", "/mnt/../tools", None, 5, []]
)
async def test_only_the_six_mount_paths_are_mounted_at(session, module, path):
    with pytest.raises(BadRequest, match="^bad_request: path: expected one of /mnt/providers, "):
        await session.mount(path, module("echo.py"), trusted=True)


@pytest.mark.parametrize("kind", ["providers", "tools", "agents", "hooks", "orchestrators", "context"])
async def test_each_mount_path_takes_modules(session, module, kind):
    mounted = await session.mount(f"/mnt/{kind}", module("echo.py"), trusted=True)
    assert mounted["path"] == f"/mnt/{kind}/echo"


@pytest.mark.parametrize("descriptor", [None, "wordcount.json", [], {"name": "x"}])
async def test_an_argument_that_is_no_descriptor_is_refused(session, descriptor):
    with pytest.raises(BadRequest, match="^bad_request: descriptor: "):
        await session.mount("/mnt/tools", descriptor, trusted=True)


async def test_a_second_module_of_the_same_name_is_refused_and_the_first_lives_on(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    with pytest.raises(BadRequest, match="/mnt/tools/echo: a module of that name is mounted there already"):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert await session.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}


async def test_two_mounts_of_one_name_at_once_leave_one(session, module, events):
    mounts = [session.mount("/mnt/tools", module("echo.py"), trusted=True) for _ in range(2)]
    first, second = await asyncio.gather(*mounts, return_exceptions=True)
    assert first == {"name": "echo", "path": "/mnt/tools/echo"}
    assert isinstance(second, BadRequest)
    assert len(events("module:start")) == 1


async def test_one_name_at_two_paths_is_two_modules(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/agents", module("echo.py"), trusted=True)
    pids = {(await session.invoke(f"/mnt/{at}/echo", "pid", {}))["pid"] for at in ("tools", "agents")}
    assert len(pids) == 2


@pytest.mark.parametrize(
    ("descriptor", "kind", "fault"),
    [
        (liar({**TRUE, "name": "other"}), Internal, "describe: name: descriptor says 'liar', got 'other'"),
        (liar({**TRUE, "kind": "agent"}), Internal, "describe: kind: descriptor says 'tool', got 'agent'"),
        (liar({**TRUE, "capabilities": ["env:HOME"]}), Forbidden, "describe claims 'env:HOME'"),
        (liar({**TRUE, "capabilities": ["nonsense"]}), Internal, "describe: capabilities: expected one of"),
        (liar({**TRUE, "capabilities": "env:HOME"}), Internal, "describe: capabilities: expected a list of text"),
        (liar({**TRUE, "capabilities": [5]}), Internal, "describe: capabilities: expected a list of text"),
        (liar({**TRUE, "inputs": []}), Internal, "describe: inputs: expected an object that maps each op"),
        (liar({**TRUE, "outputs": {"a": 5}}), Internal, "describe: outputs: expected an object that maps each op"),
        (liar([]), Internal, "describe: expected an object, got []"),
        (
            liar({**TRUE, "version": "latest"}),
            Internal,
            "describe: version: expected a semantic version like 1.2.0, got 'l",
        ),
        (liar({**TRUE, "version": 1}), Internal, "describe: version: expected a semantic version like 1.2.0, got 1"),
        (
            liar({**TRUE, "version": None}, version="1.2.0"),
            Internal,
            "version: descriptor says '1.2.0', got None",
        ),
        (
            liar({**TRUE, "version": "1.2.1"}, version="1.2.0"),
            Internal,
            "version: descriptor says '1.2.0', got '1.2.1'",
        ),
        (liar({**TRUE, "protocol": 2}), Internal, "describe: protocol: this kernel speaks version 1, got 2"),
        (liar({**TRUE, "protocol": True}), Internal, "describe: protocol: this kernel speaks version 1, got True"),
        (liar({**TRUE, "protocol": "1"}), Internal, "describe: protocol: this kernel speaks version 1, got '1'"),
        (liar({**TRUE, "flawed": ["a"]}), Internal, "describe: flawed: expected an object of ops to text, got ['a']"),
        (liar({**TRUE, "flawed": {"a": 1}}), Internal, "describe: flawed: expected an object of ops to text, got {'a'"),
        (liar(TRUE, health={"status": "ill"}), Unreachable, "health: expected"),
        (liar(TRUE, health="ok"), Unreachable, "health: expected"),
    ],
)
async def test_a_module_that_contradicts_its_descriptor_is_not_mounted(session, events, descriptor, kind, fault):
    with pytest.raises(kind) as caught:
        await session.mount("/mnt/tools", descriptor, trusted=True)
    assert fault in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.details["module"] == "/mnt/tools/liar"
    assert await session.mounts() == []
    assert [event["event"] for event in events()][-2:] == ["module:exit", "mount:add"]
    assert events("mount:add")[0]["error"]["code"] == kind.code


async def test_a_description_may_claim_less_than_the_descriptor(session, tmp_path):
    await session.register_hook("policy:request", allow_all)
    described = {**TRUE, "capabilities": [f"fs:read:{tmp_path}/below"]}
    await session.mount("/mnt/tools", liar(described, capabilities=[f"fs:read:{tmp_path}"]), trusted=True)
    assert (await session.describe("/mnt/tools/liar"))["capabilities"] == [f"fs:read:{tmp_path}/below"]


@pytest.mark.parametrize("told", [{}, {"version": None, "protocol": None, "flawed": None}, {"protocol": 1}])
async def test_what_is_optional_in_a_description_may_be_null(session, told):
    await session.mount("/mnt/tools", liar({**TRUE, **told}), trusted=True)
    assert (await session.describe("/mnt/tools/liar")).get("flawed") is None


async def test_the_version_that_a_descriptor_promises_is_mounted(session):
    await session.mount("/mnt/tools", liar({**TRUE, "version": "1.2.0"}, version="1.2.0"), trusted=True)
    assert (await session.describe("/mnt/tools/liar"))["version"] == "1.2.0"


async def test_an_op_whose_schema_is_none_is_named_and_the_module_mounted(session, events):
    inputs = {"good": {"type": "object"}, "odd": {"type": "nonsense"}, "old": {"type": "text"}}
    outputs = {"good": {"properties": {"a": 5}}, "odd": True}
    told = {**TRUE, "inputs": inputs, "outputs": outputs, "flawed": {"old": "it is gone"}}
    await session.mount("/mnt/tools", liar(told), trusted=True)
    types = "one of array, boolean, integer, null, number, object, string, or a list of them"
    flawed = {
        "odd": f"inputs: $.type: expected {types}, got 'nonsense'",
        "old": "it is gone",
        "good": "outputs: $.properties.a: expected a JSON Schema, got 5",
    }
    assert (await session.describe("/mnt/tools/liar"))["flawed"] == flawed
    assert events("mount:add")[-1]["data"]["flawed"] == flawed


@pytest.mark.parametrize(
    ("descriptor", "kind", "fault", "details"),
    [
        (python("import sys; sys.exit(3)"), Unreachable, "exit code 3", {"exit_code": 3}),
        (
            python("raise SystemExit('no licence')"),
            Unreachable,
            "exit code 1",
            {"exit_code": 1, "stderr": "no licence\n"},
        ),
        (python("import os; os.kill(os.getpid(), 9)"), Unreachable, "killed by SIGKILL", {"signal": "SIGKILL"}),
        (python("", cwd="/no/such/folder"), Unreachable, "folder /no/such/folder: No such file", {}),
    ],
)
async def test_the_error_of_a_module_that_does_not_start_has_the_cause(session, descriptor, kind, fault, details):
    with pytest.raises(kind) as caught:
        await session.mount("/mnt/tools", descriptor, trusted=True)
    assert fault in caught.value.message
    assert caught.value.details.items() >= details.items()
    assert await session.mounts() == []


async def test_a_command_that_is_not_there_is_unreachable(session):
    descriptor = {**python(""), "transport": {"type": "stdio", "command": ["no-such-command-here"]}}
    with pytest.raises(Unreachable, match="command no-such-command-here: No such file or directory"):
        await session.mount("/mnt/tools", descriptor, trusted=True)


async def test_a_mount_has_a_deadline(session):
    with pytest.raises(Timeout, match="mounting /mnt/tools/m: no answer within 0.2 s"):
        await session.mount("/mnt/tools", python("import time; time.sleep(60)"), trusted=True, timeout=0.2)
    assert await session.mounts() == []


async def test_a_cancelled_mount_leaves_nothing(session, events):
    mount = asyncio.create_task(session.mount("/mnt/tools", python("input()"), trusted=True))
    while not events("module:start"):
        await asyncio.sleep(0)
    mount.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mount
    assert events("module:exit")
    assert events("mount:add")[0]["error"]["code"] == "cancelled"


async def test_a_session_that_ends_undoes_its_mounts(kernel, session, events):
    mount = asyncio.create_task(session.mount("/mnt/tools", python("input()"), trusted=True))
    while not events("module:start"):
        await asyncio.sleep(0)
    await kernel.session.end(session.session_id)
    with pytest.raises(KernelError, match="has ended"):
        await mount


@pytest.mark.parametrize("arguments", [("/mnt/tools/echo",), ("/mnt/tools", "echo"), ("/mnt/tools",)])
async def test_unmount_takes_a_module_or_all_of_a_path(session, module, events, arguments):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/agents", module("echo.py"), trusted=True)
    assert await session.unmount(*arguments) == {"removed": ["/mnt/tools/echo"]}
    assert [mount["path"] for mount in await session.mounts()] == ["/mnt/agents/echo"]
    assert events("mount:remove")[0]["module"] == "/mnt/tools/echo"
    assert events("module:exit")[0]["module"] == "/mnt/tools/echo"


@pytest.mark.parametrize("arguments", [("/mnt/tools/echo",), ("/mnt/tools", "echo"), ("/mnt/tools",), ("",)])
async def test_unmount_of_a_path_without_module_is_refused(session, arguments):
    with pytest.raises(BadRequest, match="path: nothing is mounted at"):
        await session.unmount(*arguments)


async def test_a_name_is_free_again_after_unmount(session, module):
    for _ in range(2):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.unmount("/mnt/tools/echo")


async def test_unmount_in_a_fork_leaves_the_parents_mount(kernel, session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    child = await kernel.session.fork(session.session_id)
    await child.unmount("/mnt/tools/echo")
    assert await session.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
    with pytest.raises(BadRequest):
        await child.invoke("/mnt/tools/echo", "echo", {})


async def test_unmount_fails_invocations_in_flight(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    call = asyncio.create_task(session.invoke("/mnt/tools/echo", "sleep", {"seconds": 30}))
    await asyncio.sleep(0)
    await session.unmount("/mnt/tools/echo")
    with pytest.raises(Unreachable, match="unmounted"):
        await call


async def test_mounts_lists_all_or_one_path(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/agents", module("echo.py", kind="agent"), trusted=True)
    expected: dict = {"path": "/mnt/agents/echo", "name": "echo", "kind": "agent", "version": None, "capabilities": []}
    assert len(await session.mounts()) == 2
    assert await session.mounts("/mnt/agents") == await session.mounts("/mnt/agents/echo") == [expected]
    assert await session.mounts("/mnt/hooks") == []


async def test_describe_gives_the_verified_description(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    described = await session.describe("/mnt/tools/echo")
    assert (described["name"], described["kind"]) == ("echo", "tool")
    described["name"] = "changed"
    assert (await session.describe("/mnt/tools/echo"))["name"] == "echo"


@pytest.mark.parametrize("path", ["/mnt/tools/none", ""])
async def test_describe_of_a_path_without_module_is_refused(session, path):
    with pytest.raises(BadRequest, match="path: nothing is mounted at"):
        await session.describe(path)


@pytest.mark.parametrize("wrong", [None, 5, [], {}])
async def test_a_path_that_is_no_text_is_refused(session, wrong):
    for call in (session.describe(wrong), session.unmount(wrong)):
        with pytest.raises(BadRequest, match="path: expected text, got "):
            await call
    with pytest.raises(BadRequest, match="path: expected text, got int"):
        await session.mounts(5)


async def test_only_true_is_trust(session, module):
    with pytest.raises(BadRequest, match="trusted: expected True or False, got 'no'"):
        await session.mount("/mnt/tools", module("echo.py"), trusted="no")


async def test_unknown_fields_and_limits_that_nothing_keeps_are_in_the_log(session, module, events):
    await session.mount("/mnt/tools", module("echo.py", capabilites=[], limits={"timeout": 1}), trusted=True)
    data = events("mount:add")[0]["data"]
    assert data["unknown"] == ["capabilites", "limits.timeout"]


async def test_policy_sees_the_command_of_a_mount_and_no_secret(session, module):
    seen = []

    async def policy(event):
        seen.append(event.data["args"])
        return {"decision": "abstain"}

    await session.register_hook("policy:request", policy)
    described = module("echo.py", limits={"timeout_ms": 9000})
    transport = {**described.transport, "env": {"TOKEN": "secret"}}
    fields = {"name": "echo", "kind": "tool", "capabilities": [], "transport": transport}
    await session.mount("/mnt/tools", {**fields, "limits": {"timeout_ms": 9000}}, trusted=True)
    shown = {**transport, "env": {"TOKEN": "…"}}
    told = {"name": "echo", "kind": "tool", "transport": shown, "limits": {"timeout_ms": 9000}}
    assert seen == [{"path": "/mnt/tools", "descriptor": told}]


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ({"capabilities": ["env:A"] * 257}, "capabilities: expected at most 256, got 257"),
        ({"capabilities": ["sys:emit:" + "*" * 30_000 + "a"]}, "capabilities: expected at most 4352 characters"),
        ({"inputs": {f"op{n}": {} for n in range(16_385)}}, "inputs: expected at most 16384 ops, got 16385"),
        ({"outputs": {"o" * 257: {}}}, "outputs: expected names of at most 256 characters, got 257"),
        ({"inputs": {"op": 5}}, "inputs: expected an object that maps each op to a JSON Schema"),
    ],
)
async def test_a_description_has_a_size(site, session, described, problem):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    began = time.process_time()
    with pytest.raises(Internal, match=f"^internal: /mnt/tools/m: describe: {problem}"):
        await session.mount("/mnt/tools", scripted(describe=described))
    assert time.process_time() - began < 1


async def test_what_a_module_claims_is_compared_by_its_letters(site, session, tmp_path):
    """A path that a module wrote is not looked at: it may hang, or tell where a link leads."""
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await session.register_hook("policy:request", allow_all)
    (tmp_path / "link").symlink_to("/etc")
    claims = [f"fs:read:{tmp_path}/link", f"fs:read:{tmp_path}/link/below", f"fs:read:{tmp_path}/x/../link"]
    told = scripted("m", [f"fs:read:{tmp_path}/link"], describe={"capabilities": claims})
    await session.mount("/mnt/tools", told)
    other = scripted("other", [f"fs:read:{tmp_path}/link"], describe={"capabilities": [f"fs:read:{tmp_path}/y"]})
    with pytest.raises(Forbidden, match="describe claims 'fs:read:.*/y', which descriptor does not name"):
        await session.mount("/mnt/tools", other)
