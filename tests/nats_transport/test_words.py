"""A kernel, a server and workers, end to end: what any transport has to do, and what a pool adds."""

import asyncio
import json

import pytest
from tests.nats_transport.objects import Echo
from tests.nats_transport.servers import descriptor, local

from amplifier_core import KernelError, Unreachable
from amplifier_core.hookspecs import Chunks
from amplifier_core.testing import check_module, check_transport
from amplifier_transport_nats import _wire

FEW_MIB = {"message_bytes": 4 << 20}


def params(op="echo", **args):
    return json.dumps({"op": op, "args": args}).encode()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_keeps_the_rules_of_transports(nats, work, subject):
    work(nats, local("probe.py", name="probe", limits=FEW_MIB))
    found = await check_transport(descriptor(nats, subject=subject, name="probe", limits=FEW_MIB))
    assert [check for check in found if check.problem] == []


async def test_a_process_of_another_machine_is_a_module_as_any_other(nats, work, session, subject, events):
    async def allow(_):
        return {"decision": "allow"}

    worker = work(nats, local("echo.py", "--capabilities", '["fs:read:/srv"]', capabilities=["fs:read:/srv"]))
    await session.register_hook("policy:request", allow)
    described = descriptor(nats, subject=subject, capabilities=["fs:read:/srv"])
    await session.mount("/mnt/tools", described, timeout=30)
    assert (await session.describe("/mnt/tools/m"))["version"] == "0.1.0"
    assert await session.invoke("/mnt/tools/m", "echo", {"a": [1, None]}) == {"a": [1, None]}
    assert events("mount:add")[0]["data"]["unenforced"] == ["fs:read:/srv"]
    assert not [check for check in await check_module(described, {"echo": {"a": 1}}) if check.problem]
    with pytest.raises(KernelError) as ended:
        await session.invoke("/mnt/tools/m", "exit", {"code": 3})
    assert (ended.value.code, ended.value.details["exit_code"]) == ("unreachable", 3)
    assert await session.invoke("/mnt/tools/m", "echo", {}) == {}
    worker.terminate()
    assert worker.end() == 0
    with pytest.raises(Unreachable, match="no worker serves it"):
        await session.invoke("/mnt/tools/m", "echo", {})


async def test_without_a_worker_a_call_fails_at_once(nats, connect):
    connection = await connect(nats)
    with pytest.raises(Unreachable, match="no worker serves it"):  # and not that nobody says anything
        await connection.request("invoke", params())


async def test_a_worker_that_is_told_to_stop_ends_what_it_has(nats, serve, connect):
    module, other = Echo(), Echo()
    end = await serve(nats, module)
    connection = await connect(nats)
    calls = [asyncio.ensure_future(connection.request("invoke", params("wait", n=n))) for n in range(16)]
    await until(lambda: len(module.met) == 16)
    await serve(nats, other)
    ending = asyncio.create_task(end())
    for _ in range(20):
        assert (await connection.request("invoke", params())).ok
    module.go_on.set()
    assert [reply.result["n"] for reply in await asyncio.gather(*calls)] == list(range(16))
    await ending
    assert (await connection.request("invoke", params())).ok


@pytest.mark.parametrize("size", [300_000, 30_000_000])
async def test_messages_of_any_size(nats, serve, connect, size):
    await serve(nats, Echo())
    connection = await connect(nats)
    assert (await connection.request("invoke", params(text="x" * size))).result == {"text": "x" * size}


async def test_the_state_of_a_module_passes(nats, serve, session, subject):
    await serve(nats, Echo(kind="agent"))
    await serve(nats, Echo(kind="agent"))
    described = descriptor(nats, subject=subject, kind="agent", capabilities=[])
    await session.mount("/mnt/agents", described)
    assert await session.invoke("/mnt/agents/m", "pend", {"n": [2**53 + 1]}) == {"n": [2**53 + 1]}


async def test_a_slow_reader_holds_back_its_own_call_alone(nats, serve, connect):
    module = Echo()
    await serve(nats, module)
    connection = await connect(nats)
    chunks = Chunks()
    call = asyncio.ensure_future(connection.request("invoke", params("chunks", count=200, size=1 << 16), chunks))
    await until(lambda: chunks.ready)
    await asyncio.sleep(0.5)
    assert (await connection.request("invoke", params(n=1))).result == {"n": 1}
    assert not call.done()
    assert [(await chunks.get())["n"] for _ in range(200)] == list(range(200))
    assert (await call).result == 200
    assert chunks.dropped == 0


async def test_a_reader_may_be_slower_than_a_worker_may_be_silent(nats, serve, connect, monkeypatch):
    """The worker has answered, and says no more: its reply waits behind chunks that nobody has read."""
    monkeypatch.setattr(_wire, "SILENCE_SECONDS", 0.5)
    await serve(nats, Echo())
    connection = await connect(nats)
    chunks = Chunks()
    call = asyncio.ensure_future(connection.request("invoke", params("chunks", count=20, size=1 << 16), chunks))
    await until(lambda: chunks.ready)
    await asyncio.sleep(1.5)
    assert [(await chunks.get())["n"] for _ in range(20)] == list(range(20))
    assert (await call).result == 20


async def test_a_server_that_is_killed_and_comes_back(server, serve, connect):
    nats = server().start()
    module = Echo()
    await serve(nats, module)
    connection = await connect(nats)
    call = asyncio.ensure_future(connection.request("invoke", params("wait")))
    await until(lambda: module.met)
    nats.kill()
    with pytest.raises(Unreachable, match="the connection to NATS was lost"):  # and not that its worker is silent
        await call
    with pytest.raises(Unreachable, match="NATS at "):
        await connection.request("invoke", params())
    await until(module.given_up.is_set)
    nats.start()
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await connection.request("invoke", params())).ok
                break
            except Unreachable:
                await asyncio.sleep(0.05)
