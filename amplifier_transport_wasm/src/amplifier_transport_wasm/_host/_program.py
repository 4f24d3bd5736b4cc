"""One WASI program, from its settings to its exit code.

Owns the order, and what is said of a module that cannot run. Its lines go through this process's stdin and stdout.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import wasmtime

from amplifier_transport_wasm._report import take_report
from amplifier_transport_wasm._settings import read_settings

from ._compiled import Compiled
from ._file import open_folder, read_module
from ._memory import BoundedMemory
from ._own_memory import bound_own_memory

if TYPE_CHECKING:
    from amplifier_transport_wasm._report import Report
    from amplifier_transport_wasm._settings import Settings

TRAPPED = 134
"""The exit code of a module that has trapped, as that of a program which aborts."""
_CANNOT_RUN = 126
_LEFT = 129  # as of a hangup
_LOOK_SECONDS = 1.0
_CHARGE_SECONDS = 0.02
_SHOWN = 4000  # characters of an error of the engine
_TABLE_MAX = 1 << 20  # elements
_TABLES_MAX = 4
_COMPILING_MAX = 2 << 30  # bytes
_CALLS_MAX = 256 << 20  # bytes: what the engine takes for calls, beside the memory of the module


def main() -> int:
    """Run the module whose settings come first on stdin, and give its exit code."""
    parent = os.getppid()
    settings = read_settings(0)
    threading.Thread(target=_end_with, args=(parent, settings["run"]), daemon=True).start()
    try:
        return _run(settings)
    except (OSError, ValueError, MemoryError, wasmtime.WasmtimeError) as error:
        return _say(f"{settings['module']} cannot run: {str(error) or 'not enough memory'}", _CANNOT_RUN)
    finally:
        _remove(settings["run"])


def _remove(run: str) -> None:
    if run:
        import shutil  # noqa: PLC0415 - only some need it

        with contextlib.suppress(RecursionError):  # folders in folders, before Python 3.13
            shutil.rmtree(run, ignore_errors=True)


def _end_with(parent: int, run: str) -> None:
    """End this process when the kernel has ended without a word: a module that does not read would not know.

    On Linux somebody else is sooner, and on Windows a process ends with its job.
    """
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    _remove(run)
    os._exit(_LEFT)


def _run(settings: Settings) -> int:
    report = take_report(settings["report"]) if settings["report"] is not None else None
    config = _configure()
    memory = None
    if report is not None and settings["memory_bytes"] is not None:
        memory = BoundedMemory(settings["memory_bytes"], report.tell_memory)
        memory.configure(config)
    engine = wasmtime.Engine(config)
    kind = f"{settings['engine']} {'bounded' if memory else 'unbounded'}"
    kept = Compiled(settings["cache"], bytes.fromhex(settings["key"]), kind)
    bound_own_memory(_COMPILING_MAX)
    module = kept.load(engine, read_module(settings["module"]))
    store = wasmtime.Store(engine)
    store.set_limits(table_elements=_TABLE_MAX, instances=1, tables=_TABLES_MAX, memories=1)
    store.set_wasi(_open(settings))
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    start = _link(linker, store, module)
    if report is not None and settings["charged"]:
        threading.Thread(target=_charge, args=(report, time.process_time()), daemon=True).start()
    bound_own_memory(_CALLS_MAX if memory else None)
    return _enter(start, store)


def _configure() -> wasmtime.Config:
    """Leave out what would be memory beside the one that is bounded, or more threads."""
    config = wasmtime.Config()
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_gc = False
    config.wasm_exceptions = False  # which lie in the memory of the line above
    return config


def _open(settings: Settings) -> wasmtime.WasiConfig:
    """Open what the module was granted, and nothing else."""
    wasi = wasmtime.WasiConfig()
    wasi.argv = settings["args"]
    wasi.env = settings["env"].items()
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for here, there, writes in settings["folders"]:
        with open_folder(here) as place:
            wasi.preopen_dir(place, there, writes)
    return wasi


def _link(linker: wasmtime.Linker, store: wasmtime.Store, module: wasmtime.Module) -> wasmtime.Func:
    """Give the function that makes an instance and runs it. A module may export a million things: none is listed."""
    linker.define_module(store, "", module)
    try:
        start = linker.get(store, "", "_start")
    except wasmtime.WasmtimeError:
        start = None
    if not isinstance(start, wasmtime.Func) or start.type(store).params:
        raise ValueError("it has no function _start without parameters: it is no WASI command")
    return start


def _enter(start: wasmtime.Func, store: wasmtime.Store) -> int:
    """Run the module to its end."""
    try:
        start(store)
    except wasmtime.ExitTrap as ended:
        return int(ended.code)
    except (wasmtime.Trap, wasmtime.WasmtimeError) as error:  # the second: of a call that it made wrongly
        return _say(str(error), TRAPPED)
    return 0


def _charge(report: Report, began: float) -> None:
    """Report the CPU time of this process again and again, until that ends."""
    while True:
        time.sleep(_CHARGE_SECONDS)
        report.tell_cpu((time.process_time() - began) * 1000)


def _say(problem: str, code: int) -> int:
    print(problem[:_SHOWN], file=sys.stderr, flush=True)
    return code
