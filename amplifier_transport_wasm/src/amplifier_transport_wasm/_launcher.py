"""The host processes of one module, one after another: a small Python program that runs the module in wasmtime.

Owns what is told to the host program, and the folder of each process. The processes are those of the stdio transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import Confinement, Launch
from amplifier_transport_stdio import Launcher, StdioFields

from ._cache import Cache, find_cache
from ._opened import check_opened, folders_of, scratch_of, variables_of
from ._run_folder import RunFolder
from ._settings import Settings, write_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Notify
    from amplifier_transport_stdio import ChildProcess, LineReader, OrphanKiller

    from ._fields import WasmFields
    from ._report import Report

_HERE = Path(__file__).parent
_NEEDED = ("PROCESSOR_ARCHITECTURE",)  # on Windows Python reads there for which processor wasmtime has to be


class HostLauncher(Launcher):
    """Starts host processes. What the module was granted is told to them; they themselves are granted nothing."""

    def __init__(self, descriptor: ModuleDescriptor, fields: WasmFields, notify: Notify, orphans: OrphanKiller) -> None:
        super().__init__(descriptor, _program(fields.module), self._pass_on, orphans)
        self._wasm = fields
        self._report_event = notify
        self._module = fields.module
        self._opened: Sequence[str] = ()
        self._engine = ""
        self._cache = Cache()
        self._runs: dict[int, RunFolder] = {}
        self._removals: set[asyncio.Task[None]] = set()

    @property
    def reports(self) -> bool:
        """Whether the module has a budget."""
        limits = self._descriptor.limits
        return limits.memory_bytes is not None or limits.cpu_ms is not None

    @property
    def report(self) -> Report | None:
        """The report of the last process."""
        run = next(reversed(self._runs.values()), None)
        return run.report if run is not None else None

    def prepare(self, granted: Sequence[str]) -> None:
        """Note what is opened, and look at the files. Call it in a thread, before the first start.

        Raises ``Forbidden`` or ``Unreachable`` for what cannot be opened.
        """
        self._module = check_opened(self._descriptor, self._wasm.module, granted)
        self._opened = granted
        self._engine = version("wasmtime")
        self._cache = find_cache()

    def start(self, reader: LineReader) -> ChildProcess:
        """Start a host process, and tell it what to run. Raises ``Unreachable``."""
        run = self._make_folder()
        try:
            report = run.hand_over() if run is not None else None
            self.grant((), _Handover((report,) if isinstance(report, int) else ()))
            child = super().start(reader)
        except BaseException:
            if run is not None:
                run.remove()
            raise
        if run is not None:
            self._runs[child.pid] = run
        with contextlib.suppress(BrokenPipeError):  # its exit is the cause to report
            child.write(write_settings(self._settings(run, report)), now=True)
        return child

    async def close(self) -> None:
        """End all processes, and wait until they and their folders are gone."""
        await super().close()
        await asyncio.gather(*self._removals)

    def _make_folder(self) -> RunFolder | None:
        below = [place for place, _, _ in scratch_of(self._opened, "")]
        if not below and not self.reports:
            return None
        try:
            return RunFolder(reports=self.reports, below=below)
        except OSError as error:
            raise Unreachable(f"no folder for temporary files: {error.strerror}") from error

    def _settings(self, run: RunFolder | None, report: int | str | None) -> Settings:
        limits = self._descriptor.limits
        scratch = scratch_of(self._opened, run.scratch.as_posix()) if run else []
        own = {"TMPDIR": run.scratch.as_posix()} if run and scratch else {}
        return {
            "module": self._module,
            "args": [os.path.basename(self._module), *self._wasm.args],  # noqa: PTH119
            "env": variables_of(self._opened) | own | dict(self._wasm.env),
            "folders": [*folders_of(self._opened), *scratch],
            "memory_bytes": limits.memory_bytes,
            "charged": limits.cpu_ms is not None,
            "report": report,
            "run": str(run.path) if run else "",
            "engine": self._engine,
            "cache": self._cache.folder,
            "key": self._cache.key,
        }

    def _pass_on(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        """Report what happens to a process, and remove the folder of one that has ended."""
        self._report_event(event, data, error)
        if event == "module:exit" and (run := self._runs.pop(data["pid"], None)) is not None:
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(run.remove))
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)


class _Handover(Confinement):
    """The descriptors that one process inherits. The host program itself is granted nothing."""

    shown: Mapping[str, Any] = {}

    def __init__(self, fds: tuple[int, ...]) -> None:
        self._fds = fds

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:  # noqa: ARG002
        return Launch(command=launch.command, cwd=launch.cwd, env=launch.env, fds=self._fds)


def _program(module: str) -> StdioFields:
    """Give the host program: isolated from the environment and from the user's folders, and quick to start.

    Without ``site`` it finds this package and wasmtime by the folders that it is told.
    """
    found = importlib.util.find_spec("wasmtime")
    places = [_HERE.parent, *(Path(place).parent for place in (found and found.submodule_search_locations) or ())]
    words = (sys.executable, "-I", "-S", str(_HERE / "_host" / "__main__.py"), module, *map(str, places))
    env = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return StdioFields(command=words, cwd=_HERE.anchor, env=env)
