"""What is granted is what is enforced: for every word, every narrowing of it, and every isolation."""

import asyncio
import importlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.oracle import WORDS, includes
from tests.core.scripted import SCRIPTED, scripted
from tests.core.strategies import thorough

from amplifier_core import Forbidden, Kernel, Plan
from amplifier_core.hookspecs import AREAS, ISOLATIONS, TRANSPORTS, decode

ISOLATION = """
from amplifier_core.hookspecs import Confinement, Isolation, hookimpl

CANNOT: set = set()
CONFINES: set = set()


class Partial(Isolation):
    name = "partial"

    @property
    def confines(self):
        return frozenset(CONFINES)

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return tuple(word for word in capabilities if word in CANNOT)

    def plan(self, launch, descriptor):
        return Confined()


class Confined(Confinement):
    shown: dict = {}

    def confine(self, launch, granted):
        return launch


@hookimpl
def open_isolation(options):
    return Partial()
"""

HOST = [word for word in WORDS if not word.startswith(("sys:", "x-"))]
ABOUT = {"fs": "files", "net": "network", "env": "environment"}
BELOW = {word: [other for other in WORDS if includes(word, other)] for word in WORDS}


@st.composite
def grants(draw):
    """Draw what a module wants, what policy narrows each word to, and the words that the isolation cannot enforce."""
    wanted = draw(st.lists(st.sampled_from(WORDS), max_size=3, unique=True))
    narrowed = [draw(st.sampled_from(BELOW[word])) for word in wanted]
    return wanted, narrowed, draw(st.sets(st.sampled_from(HOST)) | st.sets(st.sampled_from(narrowed or HOST)))


@pytest.fixture
def isolation(site):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    return importlib.import_module(site.install(ISOLATIONS, "partial", ISOLATION))


@settings(thorough, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=grants(), trusted=st.booleans(), local=st.booleans(), confines=st.sets(st.sampled_from(AREAS), min_size=2))
def test_nothing_starts_with_a_grant_that_nobody_keeps(isolation, case, trusted, local, confines):
    wanted, narrowed, cannot = case
    isolation.CANNOT, isolation.CONFINES = cannot, confines
    seen: list = []

    class Sink:
        def write(self, line):
            seen.append(decode(line))

        def close(self):
            pass

    async def narrow(event):
        return {"decision": "allow", "capabilities": narrowed, "scope": "session"}

    async def mount():
        async with Kernel(event_log=False, sinks=[Sink()], isolation="partial") as kernel:
            session = await kernel.session.create(Plan("x"))
            await session.register_hook("policy:request", narrow)
            await session.mount("/mnt/tools", scripted("m", wanted, local=local), trusted=trusted)

    refused = None
    try:
        asyncio.run(mount())
    except Forbidden as error:
        refused = error
    (decision,) = [event["data"] for event in seen if event["event"] == "policy:decision"]
    granted = decision["capabilities"]
    started = [event["data"]["granted"] for event in seen if event["event"] == "module:start"]
    host = [word for word in granted if not word.startswith(("sys:", "x-"))]
    isolated = local and not trusted
    left = [word for word in host if not isolated or word in cannot or ABOUT[word.partition(":")[0]] not in confines]
    loose = [f"isolation.{area}" for area in AREAS if isolated and area not in confines]
    assert [word for word in decision["unenforced"] if word.startswith("isolation.")] == loose
    assert [word for word in left if word not in decision["unenforced"]] == []
    assert [word for word in granted if word in decision["unenforced"]] == left
    if isolated and left:
        assert refused is not None
        assert refused.details["capabilities"] == left
        assert started == []
    else:
        assert (refused, started) == (None, [granted])


@pytest.mark.parametrize("scope", ["call", "session"])
async def test_a_network_that_is_narrowed_for_one_call_is_a_denial(site, session, scope):
    site.install(TRANSPORTS, "scripted", SCRIPTED)

    async def narrow(event):
        words = ["net:connect:*" if event.data["action"] == "mount" else "net:connect:h:443"]
        return {"decision": "allow", "capabilities": words, "scope": "call" if words[0][-1] == "*" else scope}

    await session.register_hook("policy:request", narrow)
    await session.mount("/mnt/tools", scripted("m", ["net:connect:*"]))
    with pytest.raises(Forbidden, match=r"net:connect:\* was granted at the mount and cannot be taken away"):
        await session.invoke("/mnt/tools/m", "echo", {})
