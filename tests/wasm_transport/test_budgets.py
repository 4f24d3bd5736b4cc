"""Memory, CPU time and the rest that a module may use up: it ends in bounded time, with the right code."""

import string
import subprocess
import sys
import time

import pytest

from amplifier_core import BudgetExceeded, Internal, Oom, Timeout, Unreachable
from amplifier_transport_wasm._host import _own_memory

SOON = 20  # seconds: much more than it takes, on a machine that has other work


@pytest.fixture
async def mount(session, compile_c, describe):
    """Mount the program of attacks with these limits, and give its calls."""

    async def start(**limits):
        await session.mount("/mnt/tools", describe(compile_c("attack"), **limits))

        async def call(op, **args):
            return await session.invoke("/mnt/tools/probe", op, args)

        return call

    return start


async def test_memory_is_kept_to_the_page(mount, events):
    call = await mount(memory_bytes=16 << 20)
    assert (await call("grow", n=0))["n"] < 128
    has = (await call("grow", n=128 - 1))["n"]
    await call("grow", n=256 - has)
    assert (await call("grow", n=0))["n"] == 256
    with pytest.raises(Oom, match="limits.memory_bytes is 16777216") as caught:
        await call("grow", n=1)
    assert caught.value.details["memory_bytes"] == (16 << 20) + 65536
    assert (await call("grow", n=0))["n"] < 128  # another process
    assert "unenforced" not in events("mount:add")[0]["data"]


@pytest.mark.parametrize("pages", [1, 32, 32768])
async def test_a_memory_bomb_is_ended(mount, pages):
    call = await mount(memory_bytes=24 << 20, timeout_ms=SOON * 1000)
    with pytest.raises(Oom):
        await call("eat", n=pages)
    assert (await call("grow", n=0))["errno"] == 0


async def test_without_a_limit_a_module_is_told_that_there_is_no_more(mount):
    call = await mount()
    assert (await call("grow", n=65536))["errno"] == 1


async def test_a_module_that_begins_with_too_much_is_not_mounted(session, compile_c, describe):
    with pytest.raises(Oom, match="limits.memory_bytes is 1048576"):
        await session.mount("/mnt/tools", describe(compile_c("attack"), memory_bytes=1 << 20))


async def test_an_endless_loop_ends_with_its_budget(mount):
    call = await mount(cpu_ms=200, timeout_ms=SOON * 1000)
    began = time.monotonic()
    with pytest.raises(BudgetExceeded, match="limits.cpu_ms is 200"):
        await call("loop")
    assert time.monotonic() - began < SOON
    assert (await call("grow", n=0))["errno"] == 0


async def test_an_endless_loop_ends_with_its_deadline(mount, session, events):
    call = await mount(timeout_ms=SOON * 1000)
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/probe", "loop", {}, timeout=0.4)
    assert (await call("grow", n=0))["errno"] == 0
    assert len(events("module:start")) == 2


async def test_waiting_costs_no_cpu_time(mount):
    call = await mount(cpu_ms=500, memory_bytes=16 << 20)
    for _ in range(3):
        await call("sleep", n=150)


async def test_deep_recursion_traps(mount):
    call = await mount(memory_bytes=16 << 20)
    with pytest.raises(Unreachable, match="exit code 134") as caught:
        await call("dig")
    assert "wasm trap" in caught.value.details["stderr"]


@pytest.mark.parametrize(
    ("op", "args", "code", "says"),
    [
        ("trap", {}, 134, "unreachable"),
        ("outside", {"n": 1}, 134, "out of bounds"),
        ("outside", {"n": 2**31}, 134, "out of bounds"),
        ("exit", {"n": 0}, 0, ""),
        ("exit", {"n": 7}, 7, ""),
        ("exit", {"n": 125}, 125, ""),
        ("exit", {"n": 2**31}, 134, "exit"),
    ],
)
async def test_how_a_module_ends_is_told(mount, op, args, code, says):
    call = await mount(memory_bytes=8 << 20)
    with pytest.raises(Unreachable, match=f"exit code {code}") as caught:
        await call(op, **args)
    assert says in caught.value.details.get("stderr", "")


async def test_memory_without_the_limit_has_its_bounds_too(mount):
    call = await mount()
    with pytest.raises(Unreachable, match="exit code 134"):
        await call("outside", n=1)


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of the engine")


@ON_LINUX
async def test_names_that_grow_without_end_are_spelt_by_no_trap(session, compile_text, describe):
    """A C++ name of 200 letters stands for a type of a hundred million, and each frame of a trap has one."""
    digits = string.digits + string.ascii_uppercase
    name = "_Z1f1AIiiE" + "".join(f"S_IS{digits[n]}_S{digits[n]}_E" for n in range(22))
    calls = "".join(f'(func $"{name}{n * "i"}" call {n + 1})' for n in range(30))
    text = f'(module (memory (export "memory") 1) {calls} (func unreachable) (func (export "_start") call 0))'
    with pytest.raises(Unreachable) as caught:
        await session.mount("/mnt/tools", describe(compile_text(text), memory_bytes=8 << 20), timeout=60)
    assert (caught.value.details["signal"], caught.value.details["stderr"][:18]) == ("SIGABRT", "memory allocation ")


@ON_LINUX
def test_the_engine_has_a_bound_of_its_own_and_leaves_no_core_file():
    code = """if True:
    import resource
    from amplifier_transport_wasm._host._own_memory import bound_own_memory
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound_own_memory(100 << 20)
    kept = bytearray(50 << 20)
    try:
        bytearray(100 << 20)
    except MemoryError:
        bound_own_memory(None)
        print(len(bytearray(100 << 20)), resource.getrlimit(resource.RLIMIT_CORE)[0])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{100 << 20} 1\n"


def test_where_there_is_no_such_bound_nothing_is_done(monkeypatch, tmp_path):
    monkeypatch.setattr(_own_memory, "_TABLE", str(tmp_path / "missing"))
    _own_memory.bound_own_memory(1)
    assert bytearray(10 << 20)


async def test_a_flood_of_stdout_is_ended(mount):
    call = await mount(timeout_ms=60_000)
    with pytest.raises(Internal, match="no protocol"):
        await call("stdout", n=200_000)
    assert (await call("grow", n=0))["errno"] == 0


async def test_a_flood_of_stderr_is_read_and_its_end_kept(mount):
    call = await mount(timeout_ms=60_000)
    assert (await call("stderr", n=20_000))["errno"] == 0


async def test_a_start_function_that_never_ends_is_given_up(session, compile_text, describe):
    text = '(module (memory (export "memory") 1) (func $f (loop br 0)) (start $f) (func (export "_start")))'
    began = time.monotonic()
    with pytest.raises(Timeout, match="answer to health"):
        await session.mount("/mnt/tools", describe(compile_text(text), timeout_ms=1000), timeout=3.0)
    assert time.monotonic() - began < SOON


async def test_tables_are_bounded(session, compile_text, describe):
    text = """(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (table $t 1 funcref)
      (func (export "_start")
        (loop (br_if 0 (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 100000)))))
        (call $exit (i32.div_u (table.size $t) (i32.const 100000)))))"""
    with pytest.raises(Unreachable, match="exit code 10"):
        await session.mount("/mnt/tools", describe(compile_text(text)))
