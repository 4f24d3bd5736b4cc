"""What a plugin implements: transports and event sinks. Public, and small on purpose.

A plugin is a module or an object whose functions carry ``@hookimpl``, named by an entry point of its distribution::

    [project.entry-points."amplifier_core.transports"]
    unixsocket = "my_package"

The entry point's name is what a descriptor's ``transport.type`` says (or, in the group ``amplifier_core.sinks``, the
``type`` in the embedder's ``sinks=``). The plugin is loaded when it is named so, and at no other time. Everything that
it needs is imported from here and from ``amplifier_core``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy
from msgspec import UNSET

from ._chunks import Chunks
from ._errors import causes
from ._json import NotJson, decode
from ._wire import ErrorBody, Message, decode_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._descriptor import ModuleDescriptor
    from ._errors import KernelError

__all__ = [
    "PROJECT",
    "SINKS",
    "TRANSPORTS",
    "UNSET",
    "Chunks",
    "Connection",
    "ErrorBody",
    "Message",
    "NotJson",
    "Notify",
    "Sink",
    "SinkSpec",
    "TransportSpec",
    "causes",
    "decode",
    "decode_message",
    "hookimpl",
]

PROJECT = "amplifier_core"
TRANSPORTS = "amplifier_core.transports"
SINKS = "amplifier_core.sinks"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Notify(Protocol):
    """How a connection reports what happens to its module: ``module:start``, ``module:exit``, ``module:noise``.

    A transport that starts nothing reports nothing. ``data`` is JSON: for a process ``pid`` and ``command``, then
    ``exit_code`` or ``signal`` and the tail of ``stderr``; for output that was no protocol ``count`` and ``first``.
    """

    def __call__(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        """Emit one of these three events at once. Any other name is refused with ``internal``."""


class Connection(Protocol):
    """One module behind one transport. The kernel alone calls it, on one event loop, many requests at once.

    Making one checks the descriptor's ``transport`` fields and does nothing else: no process, no socket. It holds
    replies to ``descriptor.message_bytes`` itself, since it alone sees them come; one that is larger is ``internal``.
    """

    needs_trust: str
    """Why an embedder has to say ``trusted=True`` to run this module here, in one line; empty if there is no need."""

    unenforced: tuple[str, ...]
    """Those of the descriptor's capabilities that nothing on this host enforces (protocol, section 6)."""

    async def start(self, granted: Sequence[str]) -> None:
        """Make the module ready, with no more than the capabilities granted. Raises ``Unreachable`` with the cause."""

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Carry one ``health``, ``describe`` or ``invoke`` (``params``: a JSON object) and return the reply.

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
    """The hook of a transport plugin."""

    @hookspec(firstresult=True)
    def open_transport(self, descriptor: ModuleDescriptor, notify: Notify) -> Connection | None:
        """Make a connection that is not started.

        For a field that does not fit, raise ``descriptor.misfit(".url", "expected …")``; its path is below
        ``transport``, and begins with a dot or a bracket.
        """


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
