"""What a module may hand on to the modules that it mounts: its own grants, its own limits, a share of its memory."""

import asyncio

import pytest
from tests.core.scripted import SCRIPTED, call, scripted

from amplifier_core import Plan
from amplifier_core.hookspecs import TRANSPORTS

CALLER = "/mnt/orchestrators/caller"
PLACE = "net:connect:api.example:443"


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def caller(site, session):
    """Mount a module with grants and limits, and give a function that makes its system calls."""
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await session.register_hook("policy:request", allow)

    async def mount(*capabilities, **limits):
        await session.mount("/mnt/orchestrators", scripted("caller", capabilities, kind="orchestrator", limits=limits))

        async def make(*calls, within=session):
            return await within.invoke(CALLER, "call", {"syscalls": list(calls)})

        return make

    return mount


def mounting(*told, **more):
    return call("mount", path="/mnt/tools", descriptor=scripted(*told, **more))


def error(result):
    assert result["ok"] is False, result
    return result["error"]["code"], result["error"]["message"]


@pytest.mark.parametrize(
    ("granted", "endpoints", "fits"),
    [
        ([], ["api.example:443"], False),
        ([PLACE], ["api.example:443"], True),
        (["net:connect:API.example:443"], ["api.EXAMPLE:443"], True),
        ([PLACE], ["api.example:80"], False),
        ([PLACE], ["api.example:443", "proxy.example:3128"], False),
        ([PLACE], [], False),
        (["net:connect:*"], [], True),
        (["net:connect:*"], ["[::1]:80"], True),
        (["net:listen:*"], ["api.example:443"], False),
    ],
)
async def test_a_module_elsewhere_needs_the_network_of_the_one_that_mounts_it(caller, events, granted, endpoints, fits):
    make = await caller("sys:mount", *granted)
    (result,) = await make(mounting(endpoints=endpoints))
    assert result["ok"] is fits
    assert len(events("module:start")) == 1 + fits
    if not fits:
        assert error(result)[0] == "forbidden"
        assert f"{CALLER} was not granted net:connect:" in error(result)[1]


async def test_policy_has_to_allow_a_module_elsewhere_even_if_that_wants_nothing(caller, session, events):
    make = await caller("sys:mount", PLACE)
    seen = []

    async def speaks_of_the_caller_alone(event):
        seen.append(event.data)
        return {"decision": "abstain"}

    await session.register_hook("policy:request", speaks_of_the_caller_alone)
    (result,) = await make(mounting(endpoints=["api.example:443"]))
    assert result["ok"] is True  # the other hook allows it
    assert [data["capabilities"] for data in seen if data["action"] == "mount"] == [[PLACE]]
    assert [mount["capabilities"] for mount in await session.mounts("/mnt/tools")] == [[PLACE]]


async def test_an_abstention_is_no_allow_for_a_module_elsewhere(site, session, events):
    site.install(TRANSPORTS, "scripted", SCRIPTED)

    async def allows_the_caller(event):
        return {"decision": "allow" if event.data["path"] == CALLER else "abstain"}

    await session.register_hook("policy:request", allows_the_caller)
    await session.mount("/mnt/orchestrators", scripted("caller", ["sys:mount", PLACE], kind="orchestrator"))
    calls = [mounting(endpoints=["api.example:443"])]
    (result,) = await session.invoke(CALLER, "call", {"syscalls": calls})
    assert error(result) == ("forbidden", f"mount /mnt/tools/m: no policy hook allowed {PLACE}")
    assert len(events("module:start")) == 1


async def test_an_endpoint_that_is_none_is_the_transports_fault(caller):
    make = await caller("sys:mount", "net:connect:*")
    (result,) = await make(mounting(endpoints=["api.example"]))
    assert error(result)[0] == "internal"
    assert "transport 'scripted': endpoints: expected net:connect:* or net:connect:HOST:PORT" in error(result)[1]


@pytest.mark.parametrize(
    ("granted", "wanted", "fits"),
    [
        (["fs:read:/data"], "fs:read:/data/below", True),
        (["fs:read:/data"], "fs:read:/data/../etc", False),
        (["fs:read:/data"], "fs:write:/data", False),
        ([], "fs:read:/data", False),
        ([], "fs:write:$tmp", True),
        ([], "env:HOME", False),
        ([], "sys:emit", False),
        (["sys:emit:my:*"], "sys:emit:my:event", True),
        ([], "x-any:thing", True),
    ],
)
async def test_a_module_hands_on_only_what_it_has(caller, granted, wanted, fits):
    make = await caller("sys:mount", "net:connect:*", *granted)
    (result,) = await make(mounting("m", [wanted]))
    assert result["ok"] is fits
    if not fits:
        assert error(result)[0] == "forbidden"


async def test_a_path_of_what_a_module_mounts_is_taken_by_its_letters(caller, session, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    make = await caller("sys:mount", "net:connect:*", f"fs:read:{tmp_path}")
    relative, (linked) = await make(mounting("a", ["fs:read:etc"]), mounting("b", [f"fs:read:{tmp_path}/link"]))
    assert error(relative)[0] == "bad_request"
    assert "$.capabilities[0]: expected an absolute path, got 'etc'" in error(relative)[1]
    assert linked["ok"] is True  # as a name: no file was looked at, and the isolation follows no link
    granted = (await session.mounts("/mnt/tools"))[0]["capabilities"]
    assert granted == [f"fs:read:{tmp_path}/link", "net:connect:*"]


async def test_a_large_descriptor_of_a_module_is_refused(caller):
    make = await caller("sys:mount", "net:connect:*")
    (result,) = await make(mounting(describe={"version": "1" * 70_000}))
    assert error(result)[0] == "bad_request"
    assert "descriptor: expected at most 65536 bytes of JSON, got 70" in error(result)[1]


LIMITS = {"timeout_ms": 5000, "idle_ms": 4000, "memory_bytes": 1000, "cpu_ms": 3000, "concurrency": 3}


@pytest.mark.parametrize("name", [*LIMITS, "message_bytes"])
async def test_a_limit_is_at_most_that_of_the_module_that_mounts(caller, name):
    make = await caller("sys:mount", "net:connect:*", **LIMITS)
    most = LIMITS.get(name, 32 * 1024 * 1024)
    above, equal = await make(
        mounting("above", limits={name: most + 1}), mounting("equal", limits={"memory_bytes": 1, name: most})
    )
    assert error(above)[0] == "bad_request"
    assert f"$.limits.{name}: expected at most the {most} of {CALLER}, got {most + 1}" in error(above)[1]
    assert equal["ok"] is True


async def test_a_limit_that_is_left_out_is_that_of_the_module_that_mounts(caller, session):
    make = await caller("sys:mount", "net:connect:*", **LIMITS)
    await make(mounting())
    found = session._state.namespace.mounts["/mnt/tools/m"].module.descriptor.limits
    assert {name: getattr(found, name) for name in LIMITS} == LIMITS
    assert found.message_bytes == 32 * 1024 * 1024


async def test_memory_is_handed_on_once(caller, session):
    make = await caller("sys:mount", "sys:unmount", "net:connect:*", memory_bytes=1000)
    first, second, third = await make(
        *(mounting(name, limits={"memory_bytes": size}) for name, size in (("a", 600), ("b", 500), ("c", 400)))
    )
    assert first["ok"] is third["ok"] is True
    assert error(second)[0] == "bad_request"
    assert f"$.limits.memory_bytes: {CALLER} may hand on 1000 bytes in all, and 400 are left" in error(second)[1]
    await make(call("unmount", path="/mnt/tools/a"))
    (again,) = await make(mounting("b"))
    assert again["ok"] is True
    assert session._state.namespace.mounts["/mnt/tools/b"].module.descriptor.limits.memory_bytes == 600
    assert error((await make(mounting("d")))[0])[0] == "bad_request"


async def test_what_was_mounted_by_what_a_module_mounted_counts_for_it_too(caller, session):
    words = ["sys:mount", "net:connect:*"]
    make = await caller(*words, memory_bytes=1000)
    await make(mounting("child", words, limits={"memory_bytes": 700}))
    grandchild = [mounting("grandchild", limits={"memory_bytes": 400})]
    (result,) = await session.invoke("/mnt/tools/child", "call", {"syscalls": grandchild})
    assert error(result)[0] == "bad_request"
    assert f"{CALLER} may hand on 1000 bytes in all, and 300 are left" in error(result)[1]


async def test_a_module_mounts_at_most_sixty_four(caller):
    make = await caller("sys:mount", "sys:unmount", "net:connect:*")
    results = await make(*(mounting(f"m{n}") for n in range(70)))
    assert [result["ok"] for result in results] == [True] * 64 + [False] * 6
    assert error(results[-1]) == (
        "bad_request",
        f"{CALLER} has 64 modules mounted, with those that they mounted: the limit",
    )
    await make(call("unmount", path="/mnt/tools/m0"))
    assert (await make(mounting("again")))[0]["ok"] is True


async def test_a_module_that_is_unmounted_while_it_mounts_mounts_nothing(caller, session, events):
    await caller("sys:mount", "net:connect:*")

    async def takes_it_away(event):
        if event.data["path"] == "/mnt/tools/m":
            await session.unmount(CALLER)
        return {"decision": "allow"}

    await session.register_hook("policy:request", takes_it_away)
    (result,) = await session.invoke(CALLER, "call", {"syscalls": [mounting()]})
    assert error(result) == ("forbidden", f"{CALLER} is no longer mounted, and its grants have ended")
    assert events("mount:add")[-1]["error"]["message"] == f"{CALLER} is no longer mounted, and its grants have ended"
    assert len(events("module:start")) == 1


async def test_sessions_of_a_module_have_a_number_and_a_size(caller, kernel, session):
    make = await caller("sys:session.create", "sys:session.end", "sys:session.fork")
    create = call("session.create", plan={"goal": "x"})
    made = await make(*[create] * 66)
    assert [result["ok"] for result in made] == [True] * 64 + [False] * 2
    assert error(made[-1])[0] == "bad_request"
    assert "at most 64 sessions open" in error(made[-1])[1]
    fork = call("session.fork", parent_id=session.session_id)
    assert error((await make(fork))[0])[1] == error(made[-1])[1]
    await make(call("session.end", session_id=made[0]["result"]["session_id"]))
    large = call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 1024 * 1024}})
    assert "plan: expected at most 1048576 bytes" in error((await make(large))[0])[1]
    assert (await make(fork))[0]["ok"] is True
    await kernel.session.create(Plan("x"))  # the embedder's own do not count


async def test_all_modules_of_a_session_share_four_times_as_many_sessions(caller, session):
    make = await caller("sys:session.create")
    for n in range(4):
        path = (await session.mount("/mnt/agents", scripted(f"a{n}", ["sys:session.create"], kind="agent")))["path"]
        calls = [call("session.create", plan={"goal": "x"})] * 64
        assert all(each["ok"] for each in await session.invoke(path, "call", {"syscalls": calls}))
    (result,) = await make(call("session.create", plan={"goal": "x"}))
    assert "the modules of one session have at most 256 sessions open" in error(result)[1]


async def test_hooks_of_a_module_have_a_number(caller, session):
    make = await caller("sys:register_hook")
    hook = call("register_hook", event="my:event", endpoint_ref=CALLER, priority=0)
    made = await make(*[hook] * 66)
    assert [each["ok"] for each in made] == [True] * 64 + [False] * 2
    said = f"register_hook: {CALLER} has registered 64 hooks in this session: the limit"
    assert error(made[-1]) == ("bad_request", said)
    await session.register_hook("my:event", CALLER)  # the embedder's own do not count


async def test_all_modules_of_a_session_share_four_times_as_many_hooks(caller, session):
    make = await caller("sys:register_hook")
    hook = call("register_hook", event="my:event", endpoint_ref=CALLER, priority=0)
    for n in range(4):
        path = (await session.mount("/mnt/agents", scripted(f"a{n}", ["sys:register_hook"], kind="agent")))["path"]
        assert all(each["ok"] for each in await session.invoke(path, "call", {"syscalls": [hook] * 64}))
    assert "the modules of this session have registered 256 hooks" in error((await make(hook))[0])[1]


async def test_fragments_have_a_number_and_a_size_in_all(caller, session):
    make = await caller("sys:context.set_fragment", "sys:context.get")

    def fragments(keys, value):
        return [call("context.set_fragment", key=key, value=value) for key in keys]

    made = await make(*fragments(["k" * 256, "k" * 257], 1))
    assert made[0]["ok"] is True
    assert error(made[1]) == ("bad_request", "key: expected at most 256 characters, got 257")
    value = "v" * (1024 * 1024 - 2)
    large = [result for n in range(17) for result in await make(*fragments([f"large{n}"], value))]
    assert [each["ok"] for each in large] == [True] * 15 + [False] * 2
    assert "bytes of JSON in all fragments" in error(large[-1])[1]
    assert (await make(*fragments(["large0"], 0)))[0]["ok"] is True
    assert (await make(*fragments(["large15"], value)))[0]["ok"] is True
    await make(*fragments([f"large{n}" for n in range(16)], 0))
    small = [result for n in range(2) for result in await make(*fragments(range_of(n), 1))]
    assert [each["ok"] for each in small] == [True] * 1007 + [False] * (len(small) - 1007)
    assert error(small[-1]) == ("bad_request", "key: expected at most 1024 fragments in one session")


def range_of(n):
    return [f"{n}-{m}" for m in range(600)]


async def test_a_long_pattern_is_refused_before_it_is_compared(caller):
    make = await caller("sys:invoke", "sys:emit")
    (result,) = await make(call("invoke", path="x" * 1025, op="o", args={}))
    assert error(result) == ("bad_request", "args.path: expected at most 1024 characters, got 1025")


@pytest.mark.parametrize("word", ["x" * 300, "two\nlines"])
async def test_the_error_of_what_was_not_granted_is_one_short_line(caller, word):
    make = await caller("sys:emit:my:*")
    (result,) = await make(call("emit", event=word, data={}))
    assert len(error(result)[1].splitlines()) == 1
    assert len(error(result)[1]) < 300


async def test_grants_are_those_of_the_mount_when_they_are_used(site, session):
    """Policy narrows them for the session, in another invocation, while it is asked about a system call."""
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    narrowed = []

    async def judge(event):
        if event.data["action"] == "emit":
            narrowed.append(await asyncio.create_task(session.invoke(CALLER, "narrow", {})))
        if event.data.get("op") == "narrow":
            return {"decision": "allow", "capabilities": ["sys:emit:other:*"], "scope": "session"}
        return {"decision": "allow"}

    await session.register_hook("policy:request", judge)
    await session.mount("/mnt/orchestrators", scripted("caller", ["sys:emit"], kind="orchestrator"))
    emits = [call("emit", event="my:event", data={})]
    (result,) = await session.invoke(CALLER, "call", {"syscalls": emits})
    assert narrowed == [{}]
    assert error(result) == ("forbidden", f"{CALLER} was not granted sys:emit:my:event")


async def test_the_error_of_a_field_is_the_same_whatever_the_module_would_be_called(caller):
    make = await caller("sys:mount", "net:connect:*")
    transport = {"type": "http", "url": "https://127.0.0.1:1", "ca": "/etc/passwd"}
    told = {"kind": "tool", "capabilities": [], "transport": transport}
    results = await make(*(call("mount", path="/mnt/tools", descriptor={**told, "name": name}) for name in "ab"))
    assert results[0]["error"] == results[1]["error"]
    assert results[0]["error"]["details"] == {"path": "$.transport.ca"}
