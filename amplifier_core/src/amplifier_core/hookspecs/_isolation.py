"""What an isolation implements: the base class, and the hook that opens one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor

    from ._launch import Launch


class Isolation(ABC):
    """Confines the processes of modules on this host. It turns a launch into another one, and starts no module."""

    name: str

    @abstractmethod
    def trial(self) -> str:
        """Try on this host what the isolation promises. Give the reason why it cannot be kept, in one line, or "".

        The kernel calls it once, in a thread, before the first module is isolated.
        """

    @abstractmethod
    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List those of a module's capabilities that cannot be enforced here. Each of them refuses the module."""

    @abstractmethod
    def confine(self, launch: Launch, descriptor: ModuleDescriptor, granted: Sequence[str]) -> Launch:
        """Turn a launch into one that can do what was granted, and nothing else.

        Raises ``Unreachable`` for a command that is not there, ``Forbidden`` for what it cannot confine.
        """

    def describe(self) -> Mapping[str, Any]:
        """Give as JSON what the isolation is, what it enforces here and what not: for ``Kernel.describe_host``."""
        return {}


class IsolationSpec:
    """The hook of an isolation plugin."""

    @hookspec(firstresult=True)
    def open_isolation(self, options: Mapping[str, Any]) -> Isolation | None:
        """Make an isolation from the embedder's options but ``type``. Raise ``BadRequest`` for a wrong one."""
