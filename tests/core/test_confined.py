"""Modules that their own transport confines: they need no isolation and no trust, and get what it can enforce."""

import pytest
from tests.core.scripted import SCRIPTED, call, scripted

from amplifier_core import Forbidden, Kernel, Plan
from amplifier_core.hookspecs import TRANSPORTS

WORDS = ("env:A", "net:connect:*", "sys:emit", "x-own:y")
SHAPED = SCRIPTED.replace("class Scripted(Connection)", "class Scripted").replace("def launch(", "def no_launch(")


@pytest.fixture(params=[SCRIPTED, SHAPED], ids=["derived", "shaped"])
def transport(request, site):
    """Install the transport, also as one that derives from nothing and has no launch."""
    site.install(TRANSPORTS, "scripted", request.param)


@pytest.fixture
async def asked(session):
    """Allow whatever is wanted, and keep the questions."""
    questions = []

    async def allow(event):
        questions.append(event.data)
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", allow)
    return questions


@pytest.mark.parametrize("trusted", [False, True])
async def test_it_is_mounted_without_an_isolation_and_trust_means_nothing(transport, session, asked, events, trusted):
    module = scripted(capabilities=WORDS, local=True, confined=True, enforced=WORDS)
    await session.mount("/mnt/tools", module, trusted=trusted)
    (question,), (added,), (decision,) = asked, events("mount:add"), events("policy:decision")
    assert "isolation" not in question["args"]
    assert not question.get("trusted")
    assert "unenforced" not in added["data"]
    assert not decision["data"]["unenforced"]
    assert await session.invoke("/mnt/tools/m", "echo", {"n": 1}) == {"n": 1}


@pytest.mark.parametrize("trusted", [False, True])
async def test_what_its_transport_cannot_enforce_is_refused(transport, session, asked, events, trusted):
    module = scripted(capabilities=WORDS, local=True, confined=True, enforced=["env:A"])
    with pytest.raises(Forbidden, match="transport 'scripted' cannot enforce net:connect:. on this host") as caught:
        await session.mount("/mnt/tools", module, trusted=trusted)
    assert caught.value.details["capabilities"] == ["net:connect:*"]
    assert "trusted" not in caught.value.message
    assert asked[0]["unenforced"] == ["net:connect:*"]
    assert events("module:start") == []


async def test_a_module_elsewhere_is_not_confined_by_a_word(transport, session, asked, events):
    await session.mount("/mnt/tools", scripted(capabilities=WORDS))
    assert events("mount:add")[0]["data"]["unenforced"] == ["env:A", "net:connect:*"]


async def test_a_module_can_mount_one_without_a_network(site, session, asked):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    mounter = scripted("caller", ["sys:mount"], kind="orchestrator", local=True, confined=True)
    await session.mount("/mnt/orchestrators", mounter)
    mount = call("mount", path="/mnt/tools", descriptor=scripted(local=True, confined=True))
    (told,) = await session.invoke("/mnt/orchestrators/caller", "call", {"syscalls": [mount]})
    assert told["ok"], told


async def test_a_recording_has_it(site, log, events):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", scripted(local=True, confined=True))
    assert events("mount:add")[0]["data"]["connection"]["confined"] is True
