"""A module of the kit for Node under the real kernel, over STDIO: what holds for that for Python does here."""

import asyncio
import json

import pytest
from tests.module_kit.test_kernel import (
    EVERYTHING,
    counters,
    elsewhere,
    everything,
    test_a_call_and_an_error,
    test_a_deadline_ends_the_call_and_not_the_module,
    test_a_failed_call_is_the_modules_error_unless_it_is_caught,
    test_a_function_that_does_not_wait_for_its_calls_is_answered,
    test_a_function_works_on_while_its_calls_are_made,
    test_a_stateless_function_that_makes_other_calls_is_told,
    test_a_waiting_function_is_cancelled_with_its_caller,
    test_calls_that_are_awaited_together_are_made_together,
    test_chunks_of_another_module_are_passed_on,
    test_chunks_reach_the_caller,
    test_events_are_emitted_in_its_name,
    test_every_system_call,
    test_it_conforms,
    test_the_invocation_is_told,
)
from tests.module_kit_js.conftest import KIT

from amplifier_core import Forbidden, Internal, ModuleDescriptor

__all__ = [
    "counters",
    "elsewhere",
    "everything",
    "test_a_call_and_an_error",
    "test_a_deadline_ends_the_call_and_not_the_module",
    "test_a_failed_call_is_the_modules_error_unless_it_is_caught",
    "test_a_function_that_does_not_wait_for_its_calls_is_answered",
    "test_a_function_works_on_while_its_calls_are_made",
    "test_a_stateless_function_that_makes_other_calls_is_told",
    "test_a_waiting_function_is_cancelled_with_its_caller",
    "test_calls_that_are_awaited_together_are_made_together",
    "test_chunks_of_another_module_are_passed_on",
    "test_chunks_reach_the_caller",
    "test_events_are_emitted_in_its_name",
    "test_every_system_call",
    "test_it_conforms",
    "test_the_invocation_is_told",
]


pytestmark = pytest.mark.newest  # it is the same on each Python


@pytest.mark.parametrize("value", [2**53 + 1, -(2**64), {"id": 12345678901234567890}, [0.1, 1e-300]])
async def test_numbers_come_back_as_they_were(everything, value):
    assert await everything("echo", {"value": value}) == value


async def test_an_error_that_nobody_caught_belongs_to_the_call_that_made_it(session, everything, events):
    for how, message in (("timer", "Error: in a timer"), ("floating", "Error: nobody waits for it")):
        with pytest.raises(Internal, match=message):
            await everything("fail", {"how": how})
    with pytest.raises(Internal, match="Error: meanwhile"):
        await session.invoke(EVERYTHING, "break", {})
    assert not events("module:exit")


HOOKS = """
import {{ Module }} from {kit};
new Module('careful', {{ kind: 'hook' }}).op('on_event', ({{ event }}, context) => {{
  if (event.event !== 'policy:request') return context.event('careful:seen', {{ n: event.data.n }})
  const secret = event.data.args?.value === 'password'
  return secret ? {{ decision: 'deny', reason: 'a secret' }} : {{ decision: 'abstain' }}
}}).run()
"""


async def test_a_hook_decides_and_observes(session, everything, events, node, tmp_path):
    (tmp_path / "hook.mjs").write_text(HOOKS.format(kit=json.dumps((KIT / "index.js").as_uri())))
    transport = {"type": "stdio", "command": [node, str(tmp_path / "hook.mjs")]}
    fields = {"name": "careful", "kind": "hook", "capabilities": [], "transport": transport}
    await session.mount("/mnt/hooks", ModuleDescriptor.from_mapping(fields), trusted=True)
    await session.register_hook("kit:*", "/mnt/hooks/careful", priority=1)
    await session.register_hook("policy:request", "/mnt/hooks/careful", priority=2)
    assert await everything("echo", {"value": "word"}) == "word"
    with pytest.raises(Forbidden, match="a secret"):
        await everything("echo", {"value": "password"})
    await everything("tell", {"events": 2})
    while len(seen := events("careful:seen")) < 2:
        await asyncio.sleep(0.01)
    assert [event["data"] for event in seen] == [{"n": 0}, {"n": 1}]
    assert not events("hook:error")
