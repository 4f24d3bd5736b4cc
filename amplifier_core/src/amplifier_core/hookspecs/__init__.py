"""What a plugin implements: transports, event sinks and isolations. Public, and small on purpose.

A plugin is a module or an object whose functions carry ``@hookimpl``, named by an entry point of its distribution::

    [project.entry-points."amplifier_core.transports"]
    unixsocket = "my_package"

The entry point's name is what a descriptor's ``transport.type`` says (or, in the group ``amplifier_core.sinks``, the
``type`` in the embedder's ``sinks=``). The plugin is loaded when it is named so, and at no other time; only isolations
(``amplifier_core.isolations``) are also tried unnamed, when a module is to be isolated and the embedder chose none.
Everything that a plugin needs is imported from here and from ``amplifier_core``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import pluggy
from msgspec import UNSET

from amplifier_core._protocol.errors import causes
from amplifier_core._protocol.json import NotJson, decode
from amplifier_core._protocol.message import ErrorBody, Message, decode_message

from ._chunks import Chunks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core._protocol.errors import KernelError

__all__ = [
    "ISOLATIONS",
    "PROJECT",
    "SINKS",
    "TRANSPORTS",
    "UNSET",
    "Chunks",
    "Connection",
    "ErrorBody",
    "Host",
    "Isolation",
    "IsolationSpec",
    "Launch",
    "Message",
    "NotJson",
    "Notify",
    "Sink",
    "SinkSpec",
    "TransportSpec",
    "Usage",
    "causes",
    "decode",
    "decode_message",
    "hookimpl",
]

PROJECT = "amplifier_core"
TRANSPORTS = "amplifier_core.transports"
SINKS = "amplifier_core.sinks"
ISOLATIONS = "amplifier_core.isolations"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Notify(Protocol):
    """How a connection reports what happens to its module.

    The events are ``module:start``, ``module:exit``, ``module:noise`` and ``events:dropped``. A transport that starts
    nothing reports nothing of the first three. ``data`` is JSON: for a process ``pid`` and ``command``, then
    ``exit_code`` or ``signal`` and the tail of ``stderr``; for output that was no protocol ``count`` and ``first``; for
    the ``events`` of a reply that nobody waits for any more ``count`` and ``first``, with the reason as ``error``.
    """

    def __call__(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        """Emit one of these four events at once. Any other name is refused with ``internal``."""


T = TypeVar("T")


class Host(Protocol):
    """What one kernel offers to its connections."""

    def shared(self, make: Callable[[], T]) -> T:
        """Give the one thing that ``make`` makes for this kernel, at the first call: what its connections share.

        Its ``async close()`` is called, within five seconds, when the kernel has closed every module.
        """


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start on this host: what a transport wants, and what an isolation makes of it."""

    command: tuple[str, ...]
    """The program, an absolute path or a name on the ``PATH`` of ``env``, and its arguments."""
    cwd: str
    """An absolute path."""
    env: Mapping[str, str]
    """The whole environment: nothing is inherited."""
    fds: tuple[int, ...] = ()
    """Descriptors that the process inherits."""
    limits: Mapping[int, int] = {}
    """Its resource limits, by the numbers of the module ``resource``."""
    gate: int | None = None
    """A descriptor that holds the process back for as long as it is open here."""
    shown: Mapping[str, Any] = {}
    """For people, as JSON: what an isolation opens to the module. It is in the question to policy and in the log."""

    def start(self, **options: Any) -> subprocess.Popen[Any]:
        """Start it, once; options of ``subprocess.Popen`` go before its own. Raises ``OSError``; then nothing runs."""
        import subprocess  # noqa: PLC0415 - 5 ms that only those pay who start something

        try:
            own = {"args": self.command, "cwd": self.cwd, "env": dict(self.env), "pass_fds": self.fds}
            process = subprocess.Popen(**own | options)
            try:
                self._limit(process.pid)
            except OSError:
                with process:
                    process.kill()
                raise
        finally:
            self.close()
        return process

    def close(self) -> None:
        """Close what is open for it here, as ``start`` does, which whoever does not start it has to do."""
        for fd in (*self.fds, *(() if self.gate is None else (self.gate,))):
            os.close(fd)

    def _limit(self, pid: int) -> None:
        if self.limits:
            from resource import prlimit  # noqa: PLC0415 - Linux, where alone there are any

            for number, value in self.limits.items():
                prlimit(pid, number, (value, value))


class Usage(msgspec.Struct, frozen=True):
    """What a module's processes use, those that they started included."""

    cpu_ms: float
    """CPU time since the start of the first one."""
    memory_bytes: int
    """Memory resident now."""
    settling: bool = False
    """Whether it is being decided what becomes of a cancelled request: what is spent then is on nobody's account."""


class Connection(Protocol):
    """One module behind one transport. The kernel alone calls it, on one event loop, many requests at once.

    A local one also has ``launch() -> Launch``: what it starts if all capabilities are granted, before any isolation.
    Where it can, a connection has more, which the kernel looks for by name and does without where it is ``None``:
    ``clues() -> Mapping``, what may explain that no answer comes; ``usage(*, exact: bool) -> Usage | None``, what its
    processes use, exact being slower and counting shared memory once; ``kill(error)``, which ends them at once and
    fails what is in flight with such an error. ``usage`` and ``kill`` are what memory and CPU budgets are kept with.

    Making one checks the descriptor's ``transport`` fields and does nothing else: no process, no socket. It holds
    replies to ``descriptor.message_bytes`` itself, since it alone sees them come; one that is larger is ``internal``.
    """

    local: bool
    """Whether the module is to run as processes on this host, which have to be isolated or trusted (section 6)."""

    unenforced: tuple[str, ...]
    """Those of the descriptor's capabilities that the transport itself does not enforce (section 6)."""

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:
        """Make the module ready, with no more than the capabilities granted. Raises ``Unreachable`` with the cause.

        Where ``isolation`` is given, every process is started as its ``confine`` says.
        """

    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        """Carry one ``health``, ``describe`` or ``invoke`` (``params``: a JSON object) and return the reply.

        An ``async def``, or something else that gives what one task awaits at once.

        ``{"chunk": …}`` messages that come before it go to ``chunks.put``, in order; with ``None`` nobody wants them.

        ``health`` and ``describe`` come back as ``Message(ok=True, result=…)`` too. A field that a message does not
        have is ``UNSET``. Failures of the transport are ``KernelError``, a new one for each request. When the awaiting
        task is cancelled, tell the module and clean up: deadlines end like this. A module that went away is started
        again here, by the next request.
        """

    async def close(self) -> None:
        """End the module and release everything. Requests in flight fail with ``Unreachable``. Idempotent.

        It may come without ``start``, or after one that was cancelled. The kernel waits five seconds, no longer.
        """


class TransportSpec:
    """The hooks of a transport plugin; ``describe_host`` may be left out."""

    @hookspec(firstresult=True)
    def open_transport(self, descriptor: ModuleDescriptor, notify: Notify, host: Host) -> Connection | None:
        """Make a connection that is not started.

        For a field that does not fit, raise ``descriptor.misfit(".url", "expected …")``; its path is below
        ``transport``, and begins with a dot or a bracket. An implementation may leave out parameters.
        """

    @hookspec(firstresult=True)
    def describe_host(self) -> Mapping[str, Any] | None:
        """Say as JSON what the transport found that it can do on this host and what not, and why."""


class Isolation(Protocol):
    """What confines the processes of modules on this host. It turns command lines into others and starts no module."""

    name: str

    def trial(self) -> str:
        """Try on this host what it promises, and say in one line why it cannot be kept; empty if it can.

        The kernel calls it once, in a thread of its own, before the first module is isolated.
        """

    def describe(self) -> Mapping[str, Any]:
        """Say as JSON what it is, and what it enforces here and what not: for ``Kernel.describe_host``."""

    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List those of a module's capabilities that it cannot enforce here. The module is refused for any of them."""

    def confine(self, launch: Launch, descriptor: ModuleDescriptor, granted: Sequence[str]) -> Launch:
        """Turn a launch into one that can do what was granted, and nothing else.

        Raises ``Unreachable`` for a command that is not there, ``Forbidden`` for what it cannot confine.
        """


class IsolationSpec:
    """The hook of an isolation plugin."""

    @hookspec(firstresult=True)
    def open_isolation(self, options: Mapping[str, Any]) -> Isolation | None:
        """Make an isolation from what the embedder gave beside its ``type``. Raise ``BadRequest`` for what is unfit."""


class Sink(Protocol):
    """Where events go: called for each one, in ``seq`` order, before the call that emitted it returns.

    It is called in the thread of the kernel's event loop and holds up everything: a write to a local file is fine, a
    network is not. What goes elsewhere belongs into a queue of the sink's own.
    """

    def write(self, line: bytes) -> None:
        """Take one envelope (section 7) as a JSON line with its end. What it raises is counted, and the run goes on."""

    def close(self) -> None:
        """Release everything; nothing is written afterwards. Idempotent."""


class SinkSpec:
    """The hook of a sink plugin."""

    @hookspec(firstresult=True)
    def open_sink(self, options: Mapping[str, Any]) -> Sink | None:
        """Make a sink from what the embedder gave beside its ``type``. Raise ``BadRequest`` for what does not fit."""
