"""What a transport implements: the base class of connections, and the hooks that open one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from amplifier_core._protocol.errors import Internal

from ._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.message import Message

    from ._chunks import Chunks
    from ._host import Host
    from ._isolation import Confinement
    from ._launch import Launch


class Notify(Protocol):
    """How a connection reports what happens to its module.

    A transport that starts processes reports ``module:start`` (``pid``, ``command``), ``module:exit`` (``exit_code`` or
    ``signal``, neither if the system cannot tell, and the tail of ``stderr``) and ``module:noise``, output that is no
    protocol (``count``, ``first``). Any transport reports ``events:dropped``: ``events`` of a reply whose request was
    cancelled (``count``, ``first``), with the reason as ``error``.

    Any transport reports ``module:changed`` (no data) when its module says that ``describe`` would give something else
    now. The kernel then asks it again, before it gives the description to anybody, and verifies the answer as at the
    mount: a module gets no capability by it. It may be reported at any time and any number of times: what is reported
    before the next question is one event.
    """

    def __call__(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        """Record one of these five events at once; ``data`` is JSON. Raises ``Internal`` for any other name."""


class Usage(msgspec.Struct, frozen=True):
    """What the processes of a module use together, with the processes that they started."""

    cpu_ms: float
    """CPU time since the start of the first process."""
    memory_bytes: int
    """Memory: what is resident or swapped out, and its page tables."""
    settling: bool = False
    """Whether a cancelled request is in its grace. No invocation is charged for the CPU time spent meanwhile."""


class Connection(ABC):
    """One module behind one transport. The kernel alone calls it, on one event loop, many requests at once.

    Making one checks the descriptor's ``transport`` fields and does nothing else: no process, no socket. It holds
    replies to ``descriptor.message_bytes``, since no other code sees them come; a larger one is ``internal``.
    """

    local: bool
    """Whether the module runs as processes on this host. Those have to be confined or trusted (section 6)."""

    confined: bool = False
    """Whether the transport itself confines a local module in all of ``AREAS``, whatever it was granted.

    Then the kernel asks no isolation, ``trusted`` means nothing, and what is ``unenforced`` cannot be granted.
    """

    unenforced: tuple[str, ...]
    """Those of the descriptor's capabilities that the transport itself does not enforce (section 6).

    ``sys:`` words, which the kernel enforces, and ``x-`` words, which policy alone judges, do not belong here.
    """

    endpoints: Sequence[str] = ()
    """Where a connection that is not local connects to: each ``HOST:PORT``, a proxy's too, an IPv6 address in brackets.

    A module may mount this only if it was granted ``net:connect:HOST:PORT`` for each of them; if none is told here,
    only if it was granted ``net:connect:*``.
    """

    async def survey(self) -> None:
        """Look at where a remote module runs, before policy is asked: ``unenforced`` holds for what is found there.

        The kernel calls it once, and only for a descriptor of the embedder's: for a module's it connects nowhere before
        policy has allowed the mount. Raises ``Unreachable`` with the cause.
        """

    @abstractmethod
    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Make the module ready, with the granted capabilities alone. Raises ``Unreachable`` with the cause.

        With a ``confinement``, every process is started as its ``confine`` says.
        """

    @abstractmethod
    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        """Carry one ``health``, ``describe`` or ``invoke`` (``params``: a JSON object) and return the reply.

        An ``async def``, or a function whose result one task awaits at once.

        ``{"chunk": …}`` messages before the reply go to ``chunks.put``, in order; with ``None`` they are dropped.

        ``health`` and ``describe`` come back as ``Message(ok=True, result=…)`` too. Failures of the transport are
        ``KernelError``, a new one for each request. The first request after the end of a module starts it again.

        Deadlines end a request by cancelling the task that awaits it. Then tell the module and clean up, within a
        second: the kernel leaves a coroutine that has not ended by then. What the module still sends for this request
        is nobody's: its chunks and its reply are dropped, never given to another request, and the ``events`` of the
        reply are reported as ``events:dropped``. A module that does not answer at all is ended, where there is a way.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the module and release everything. Requests in flight fail with ``Unreachable``. Idempotent.

        The kernel may call it without ``start``, or after a ``start`` that was cancelled. It waits for five seconds.
        """

    def launch(self) -> Launch:
        """Give what a local connection starts if every capability is granted, before any isolation.

        Raises ``Forbidden`` if no isolation can confine it: it is mounted as trusted, or not at all.
        """
        raise Internal(f"{type(self).__name__} is local, and has no launch()")

    def clues(self) -> Mapping[str, Any]:
        """Give what may explain that no answer comes. It goes into the ``details`` of a timeout."""
        return {}

    def usage(self, *, exact: bool) -> Usage | None:
        """Measure what the module uses now. ``exact`` counts memory that processes share once, and is slower.

        The kernel calls it in a thread, while the loop runs. Raises a ``KernelError`` if the module has made itself too
        large to measure: it is killed with that error.

        ``None``: no process runs, or none can be measured. The kernel asks right after the start: after ``None`` it
        keeps no memory or CPU budget, and lists both as unenforced. A connection that measures also has ``kill``.
        """
        return None

    def kill(self, error: KernelError) -> None:
        """End the module's processes at once. Requests in flight fail with errors of this class and message."""


class TransportSpec:
    """The hooks of a transport plugin. It may leave out ``describe_host``."""

    @hookspec(firstresult=True)
    def open_transport(self, descriptor: ModuleDescriptor, notify: Notify, host: Host) -> Connection | None:
        """Make a connection, without starting it. An implementation may leave out parameters.

        For a field that does not fit, raise ``descriptor.misfit(".url", "expected …")``. The path is below
        ``transport``, and begins with a dot or a bracket.
        """

    @hookspec(firstresult=True)
    def describe_host(self) -> Mapping[str, Any] | None:
        """Give as JSON what the transport can do on this host, what it cannot, and why."""
