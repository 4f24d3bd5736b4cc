"""What an isolation implements: the two base classes, and the hook that opens one. What it may confine has names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor

    from ._launch import Launch


AREAS: tuple[str, ...] = ("files", "network", "environment", "processes")
"""In what an isolation may confine a module.

``files``: the module sees no file but the system's, its own and those granted, and writes only to granted ones.
``network``: without a ``net:`` capability it reaches nothing, loopback included, and no socket that is a file.
``environment``: it has no variable and no open descriptor that was not given to it.
``processes``: it sees and signals no process but its own, and none of these outlives it.
"""


class Confinement(ABC):
    """How the processes of one module are confined, as an isolation found out when the module was mounted."""

    shown: Mapping[str, Any]
    """What is opened to the module if every capability is granted, as JSON for people: for the question to policy."""

    @abstractmethod
    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Make the launch of one process that can do what was granted, and nothing else: at each start.

        ``launch`` is what the transport wants now. Its command and its folder are those of the plan; its environment
        may be smaller. The loop of the kernel waits for this, so it reads no file. A module may have written meanwhile
        where it may write: it follows no name that leads elsewhere now. Raises ``Unreachable`` for what was replaced
        since the plan, ``Forbidden`` for what it cannot confine. If it raises anything, or gives no ``Launch``, nothing
        is started.

        What it holds for the process until that has ended, it ends in ``Launch.end``: the kernel calls that once, and
        waits for ten seconds.
        """


class Isolation(ABC):
    """Confines the processes of modules on this host. It plans how, and starts no module."""

    name: str

    confines: Collection[str]
    """In what it confines every module here, whatever that was granted: some of ``AREAS``. Read after the trial.

    What is left out is ``unenforced`` for every module, as ``isolation.AREA``, and a capability that is about it
    refuses a module. An isolation that does not say it is not used.
    """

    @abstractmethod
    def trial(self) -> str:
        """Try on this host what the isolation promises. Give the reason why it cannot be kept, in one line, or "".

        The kernel calls it once, in a thread, before the first module is isolated.
        """

    @abstractmethod
    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List those of a module's capabilities that cannot be enforced here. Each of them refuses the module.

        It is not asked about ``sys:`` words, which the kernel enforces, nor about ``x-`` words, which policy judges.
        The kernel calls it in a thread, since it may have to try something.
        """

    def why_unenforced(self, capability: str) -> str:  # noqa: ARG002 - others look at it
        """Say in one line why such a ``capability`` cannot be enforced here; "" if there is nothing more to say."""
        return ""

    @abstractmethod
    def plan(self, launch: Launch, descriptor: ModuleDescriptor) -> Confinement:
        """Find out how a launch is confined, once for each mount. It starts nothing and holds nothing.

        The kernel calls it in a thread, and gives that up at the deadline of the mount: it may read files, and should
        bound what it reads. If ``descriptor.caller`` is set, a module wrote the descriptor, and policy has allowed the
        mount already: then open nothing that was not granted. Raises ``Unreachable`` for a command that is not there,
        ``Forbidden`` for what it cannot confine.
        """

    def describe(self) -> Mapping[str, Any]:
        """Give as JSON what the isolation is, what it enforces here and what not: for ``Kernel.describe_host``.

        The kernel calls it in a thread.
        """
        return {}

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what runs for all modules together. Idempotent; what is planned afterwards may start it again.

        The kernel calls it at its end, in a thread, when all modules are closed, and waits for five seconds.
        """


class IsolationSpec:
    """The hook of an isolation plugin."""

    @hookspec(firstresult=True)
    def open_isolation(self, options: Mapping[str, Any]) -> Isolation | None:
        """Make an isolation from the embedder's options but ``type``. Raise ``BadRequest`` for a wrong one.

        The kernel calls it in a thread.
        """
