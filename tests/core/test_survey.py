"""What a transport finds out about the host of a module elsewhere, before policy is asked."""

import asyncio

import pytest

from amplifier_core import Internal, Kernel, Plan, Unreachable
from amplifier_core.hookspecs import Connection, Message

WORDS = ["env:HOME", "net:connect:*"]
FIELDS = {"name": "m", "kind": "tool", "capabilities": WORDS, "transport": {"type": "there"}}


class There(Connection):
    """A module elsewhere, where the environment is confined."""

    local = False
    unenforced = tuple(WORDS)
    fails: BaseException | None = None

    def __init__(self, descriptor, **_):
        self.name = descriptor.name

    async def survey(self):
        if self.fails is not None:
            raise self.fails
        self.unenforced = ("net:connect:*",)

    async def start(self, granted, confinement):
        pass

    async def request(self, method, params, chunks=None):
        described = {"name": self.name, "kind": "tool", "inputs": {}, "outputs": {}, "capabilities": []}
        return Message(ok=True, result={"status": "ok", **described})

    async def close(self):
        pass


@pytest.fixture
async def mount(log):
    """Mount it under a policy that allows everything; give what policy saw as unenforced."""

    async def allow(event):
        seen.append(event.data["unenforced"])
        return {"decision": "allow"}

    async def mounted(opens, **fields):
        async with Kernel(event_log=log, open_transport=opens, isolation=False) as kernel:
            session = await kernel.session.create(Plan(goal="test", inputs={}))
            await session.register_hook("policy:request", allow)
            await session.mount("/mnt/tools", FIELDS | fields)
        return seen

    seen: list = []
    return mounted


async def test_policy_sees_what_is_unenforced_there(mount):
    assert (await mount(There))[0] == ["net:connect:*"]


class Outlined:
    """The same shape, of a class that derives from nothing, without a survey."""

    local = False
    unenforced = tuple(WORDS)

    def __init__(self, descriptor, **_):
        inner = There(descriptor)
        self.start, self.request, self.close = inner.start, inner.request, inner.close


async def test_a_connection_that_surveys_nothing_enforces_nothing(mount):
    assert (await mount(Outlined))[0] == WORDS


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (Unreachable("nobody there"), Unreachable, "m: nobody there"),
        (OSError("no route"), Internal, "no route"),
        (asyncio.CancelledError(), Internal, "cancelled a survey that the kernel had not cancelled"),
    ],
)
async def test_a_survey_that_fails_fails_the_mount(mount, raised, error, says):
    There.fails = raised
    try:
        with pytest.raises(error, match=says):
            await mount(There)
    finally:
        There.fails = None
