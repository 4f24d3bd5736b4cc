"""What the log has beyond its usual events while a run is recorded, so that it can be done again (section 7).

Owns the events ``mount:pre_add``, ``module:reply`` and ``module:chunk``, and what ``mount:add`` has then. No observer
hears of them, since a recorded run has to be like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from msgspec import UNSET, Raw, structs

from amplifier_core.hookspecs._chunks import Chunks

from .secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core._protocol.ids import Span
    from amplifier_core._protocol.message import Message, SystemCall
    from amplifier_core._sessions.state import SessionState


def record_mount(state: SessionState, path: str, descriptor: ModuleDescriptor, span: Span, *, trusted: bool) -> None:
    """Record that a mount begins, and of what: ``mount:pre_add``."""
    data = {"descriptor": _describe(descriptor), "trusted": trusted}
    state.record("mount:pre_add", span, module=path, data=data, observed=False)


def describe_module(module: Module) -> dict[str, Any]:
    """Give for ``mount:add`` what the module said of itself, and how it runs."""
    connection = module.connection
    return {
        "description": Raw(module.description or b"null"),
        "connection": {
            "local": connection.local,
            "confined": connection.confined,
            "endpoints": list(connection.endpoints),
            "unenforced": list(connection.unenforced),
            "isolation": module.isolation.name if module.isolation else None,
        },
    }


def _describe(descriptor: ModuleDescriptor) -> dict[str, Any]:
    """Describe a descriptor whole, but for secrets of its transport. Its capabilities are canonical."""
    limits = {name: value for name, value in attrs.asdict(descriptor.limits).items() if value is not None}
    told: dict[str, Any] = {"name": descriptor.name, "kind": descriptor.kind, "base": str(descriptor.base)}
    told |= {"capabilities": list(descriptor.capabilities), "transport": without_secrets(descriptor.transport)}
    optional = {"version": descriptor.version, "limits": limits, "ops": dict(descriptor.ops)}
    optional |= {"caller": descriptor.caller}
    return told | {name: value for name, value in optional.items() if value}


def record_reply(state: SessionState, module: Module, op: str, message: Message, span: Span | None = None) -> None:
    """Record a reply that does not end its invocation at once: system calls with their state, and events as they came.

    It has the result too, or the error. Otherwise that of a kernel that is killed before the end would be lost.
    """
    data: dict[str, Any] = {"op": op}
    if message.events:
        data["events"] = message.events
    if span is not None:
        data |= _parts_of(message)
    state.record("module:reply", span, module=module.path, data=data, observed=False)


def _parts_of(message: Message) -> dict[str, Any]:
    """Give what a reply has; ``ok`` too if that is none of the three shapes of section 2."""
    told: dict[str, Any] = {} if message.is_reply() else {"ok": message.ok}
    if message.pending is not None:
        calls = [{"name": call.name, "args": _without_secrets(call)} for call in message.pending.syscalls]
        told["pending"] = {"syscalls": calls, "state": message.pending.state}
    if message.error is not None:
        told |= {"error": structs.asdict(message.error), "size": message.size}
    if message.result is not UNSET:
        told["result"] = message.result
    return told


def _without_secrets(call: SystemCall) -> dict[str, Any] | None:
    """Give the arguments of a system call, but for secrets of the transport that a ``mount`` names."""
    args = call.args or {}
    descriptor = args.get("descriptor") if call.name == "mount" else None
    if not isinstance(descriptor, dict) or not isinstance(transport := descriptor.get("transport"), dict):
        return call.args
    return args | {"descriptor": descriptor | {"transport": without_secrets(transport)}}


class RecordedChunks(Chunks):
    """Chunks passed on to another buffer. Each is recorded before."""

    __slots__ = ("_record", "_to")

    def __init__(self, to: Chunks, record: Callable[[Any], None]) -> None:
        super().__init__()
        self._to = to
        self._record = record

    def put(self, chunk: object, size: int) -> bool:
        """Record a chunk, and pass it on."""
        self._record(chunk)
        return self._to.put(chunk, size)

    def when_room(self, call: Callable[[], None]) -> None:
        """Leave the question of room to the other buffer."""
        self._to.when_room(call)

    def count_dropped(self, count: int) -> None:
        """Leave the count to the other buffer."""
        self._to.count_dropped(count)

    def hold(self) -> None:
        """Pass on that the request has to wait."""
        self._to.hold()

    def sent(self) -> None:
        """Pass on that the request has been sent."""
        self._to.sent()


def recorded(state: SessionState, path: str, span: Span, chunks: Chunks) -> Chunks:
    """Give a buffer for the chunks of one invocation that records each as ``module:chunk``."""

    def record(chunk: object) -> None:
        state.record("module:chunk", span, module=path, data={"chunk": chunk}, observed=False)

    return RecordedChunks(chunks, record)
