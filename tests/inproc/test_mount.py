"""How an object is named and mounted, and that nothing but the embedder's word mounts it."""

import sys
from typing import Any

import pytest
from tests.inproc.objects import CAPABILITIES, Answers, Plain, kit

from amplifier_core import BadRequest, Forbidden, Kernel, KernelError, ModuleDescriptor, Plan, Timeout, Unreachable
from amplifier_core.testing import check_module
from amplifier_transport_inproc import descriptor_of

NAMED = {"name": "plain", "kind": "tool", "capabilities": []}


def named(path, **fields):
    return ModuleDescriptor.from_mapping({**NAMED, "transport": {"type": "inproc", "object": path}, **fields})


async def test_a_live_object_is_a_module_like_any_other(session, mount, plain, events):
    path = await mount(plain)
    assert await session.invoke(path, "echo", {"value": [1, None]}) == [1, None]
    assert [each["path"] for each in await session.mounts()] == [path]
    assert "echo" in (await session.describe(path))["inputs"]
    assert [event["data"]["op"] for event in events("module:invoke")] == ["echo"]


async def test_an_object_is_named_by_its_import_path(session):
    await session.mount("/mnt/tools", named("tests.inproc.objects:plain"), trusted=True)
    assert await session.invoke("/mnt/tools/plain", "echo", {"value": 1}) == 1


@pytest.mark.parametrize("live", [True, False])
async def test_a_module_of_the_kit_is_mounted_without_a_process(session, live):
    descriptor = descriptor_of(kit) if live else named("tests.inproc.objects:kit", name="kit")
    await session.mount("/mnt/tools", descriptor, trusted=True)
    assert await session.invoke("/mnt/tools/kit", "count", {"text": "a b"}) == {"words": 2}
    with pytest.raises(BadRequest, match="args.text: expected str, got int"):
        await session.invoke("/mnt/tools/kit", "count", {"text": 1})


async def test_it_conforms(plain, blocking, answers):
    for module, examples in ((plain, {"echo": {"value": 1}}), (blocking, {"echo": {"value": 1}})):
        checks = await check_module(descriptor_of(module), {**examples, "ids": {}})
        assert [check for check in checks if check.problem and "unknown op" not in check.name] == []
    checks = await check_module(descriptor_of(kit), {"count": {"text": "a b"}})
    assert [check for check in checks if check.problem] == []


@pytest.mark.parametrize("isolation", [None, False])
async def test_it_needs_the_embedders_word(plain, isolation):
    """Whether an isolation works here or not, the reason is that none could confine it."""
    async with Kernel(event_log=False, isolation=isolation) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        with pytest.raises(Forbidden, match="plain runs in the process of the kernel, .* trusted=True"):
            await session.mount("/mnt/tools", descriptor_of(plain))
        assert await session.mounts() == []


async def test_policy_sees_what_it_is(session, mount, plain):
    asked = []

    async def allow(event):
        asked.append(event.data)
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow)
    plain.capabilities = ["fs:read:/data", "sys:context.get"]
    await mount(plain)
    assert asked[0]["trusted"] is True
    assert asked[0]["unenforced"] == ["fs:read:/data"]
    transport = {"type": "inproc", "instance_of": "tests.inproc.objects.Plain"}
    assert asked[0]["args"]["descriptor"]["transport"] == transport


async def test_a_module_cannot_mount_one(session, mount, plain):
    async def allow(_event):
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow)
    plain.capabilities = CAPABILITIES
    path = await mount(plain)
    transport = {"type": "inproc", "object": "tests.inproc.objects:kit"}
    wanted = {"descriptor": {**NAMED, "name": "kit", "transport": transport}}
    (outcome,) = await session.invoke(path, "mounting", wanted)
    assert outcome["error"]["code"] == "forbidden"
    assert "the embedder's own process" in outcome["error"]["message"]


async def test_budgets_are_not_kept_and_the_log_says_so(mount, plain, events):
    await mount(plain, limits={"memory_bytes": 1 << 30, "cpu_ms": 1000})
    (added,) = events("mount:add")
    assert added["data"]["unenforced"] == ["limits.memory_bytes", "limits.cpu_ms"]


async def test_limits_are_the_objects_own_or_those_that_are_given(plain):
    assert descriptor_of(plain).limits.concurrency is None
    plain.limits = {"concurrency": 2}
    assert descriptor_of(plain).limits.concurrency == 2
    assert descriptor_of(plain, limits={"timeout_ms": 5}).limits.concurrency is None
    with pytest.raises(BadRequest, match=r"\$.limits: expected an object, got 5"):
        descriptor_of(plain, limits=5)  # type: ignore[arg-type]


async def test_one_descriptor_is_mounted_in_two_kernels(plain):
    descriptor = descriptor_of(plain)
    for _ in range(2):
        async with Kernel(event_log=False) as kernel:
            session = await kernel.session.create(Plan(goal="test", inputs={}))
            await session.mount("/mnt/tools", descriptor, trusted=True)
            await session.invoke("/mnt/tools/plain", "echo", {})
    assert len(plain.seen) == 2


def test_an_object_that_describes_nothing_has_no_descriptor():
    async def describe():
        return {}

    class Odd:
        describe: Any

    with pytest.raises(BadRequest, match="Odd: expected an object whose describe"):
        descriptor_of(Odd())
    odd = Odd()
    for odd.describe in (describe, lambda: [1]):
        with pytest.raises(BadRequest, match="Odd: expected an object whose describe"):
            descriptor_of(odd)
    odd.describe = lambda: {"name": "odd"}
    with pytest.raises(BadRequest, match=r"Odd: \$.kind: expected a value"):
        descriptor_of(odd)


@pytest.mark.parametrize(
    ("transport", "said"),
    [
        ({}, r"\$.transport.object: expected an import path like package.module:name, got None"),
        ({"object": 5}, r"\$.transport.object: .*, got 5"),
        ({"object": "no path"}, r"\$.transport.object: .*, got 'no path'"),
        ({"object": "a:b" * 400}, r"\$.transport.object: expected an import path"),
        ({"instance_of": "a.B"}, r"\$.transport.instance_of: expected one of type, object"),
    ],
)
async def test_fields_are_read_strictly(session, transport, said):
    with pytest.raises(BadRequest, match=said):
        await session.mount("/mnt/tools", {**NAMED, "transport": {"type": "inproc", **transport}}, trusted=True)


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("tests.inproc.nowhere:plain", Unreachable, "tests.inproc.nowhere:plain cannot be imported: ModuleNotFound"),
        ("tests.inproc.objects:nothing", Unreachable, "cannot be imported: AttributeError"),
        ("tests.inproc.objects:OPS", BadRequest, r"expected an object with describe\(\) and invoke\(\), .* got list"),
    ],
)
async def test_a_path_that_leads_to_no_module_is_refused(session, events, path, kind, said):
    with pytest.raises(kind, match=said):
        await session.mount("/mnt/tools", named(path), trusted=True)
    assert await session.mounts() == []


async def test_an_import_that_ends_the_program_does_not(session, tmp_path, monkeypatch):
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unreachable, match="exits:x cannot be imported: SystemExit: 3"):
        await session.mount("/mnt/tools", named("exits:x"), trusted=True)


async def test_an_import_has_the_deadline_of_the_mount(session, tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text("import slow_lock\nslow_lock.event.wait()\n")
    (tmp_path / "slow_lock.py").write_text("import threading\nevent = threading.Event()\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(Timeout, match="mounting /mnt/tools/plain"):
            await session.mount("/mnt/tools", named("slow:x"), trusted=True, timeout=0.3)
    finally:
        sys.modules["slow_lock"].event.set()


async def test_a_description_that_fails_fails_the_mount(session, mount):
    class Broken(Plain):
        async def health(self):
            raise ValueError("not well")

    with pytest.raises(KernelError, match="health raised ValueError: not well"):
        await mount(Broken())


async def test_what_was_opened_for_a_mount_is_closed_with_it(session, mount, answers):
    await mount(answers)
    await mount(Answers("others"))
    assert answers.closed == 0
    await session.unmount("/mnt/tools")
    assert answers.closed == 1
