"""What modules and policy hooks answered in a run, answered again when the log comes to it.

Owns which answer an event of the log tells of. `_replay` decides when it is due.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw

from amplifier_core import Unreachable
from amplifier_core.hookspecs import ErrorBody, Message, Pending, SystemCall

from ._hooks import FAILED, Hooks
from ._isolation import RecordedIsolation
from ._live import LiveModule
from ._module import Modules, RecordedConnection, Told, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Host, Notify

    from ._live import Live
    from ._log import Entry, Log
    from ._produced import Produced
    from ._real import Real

REPORTED = ("module:start", "module:exit", "module:noise", "module:changed", "events:dropped")
"""What a transport reports."""

_UNSURE = (
    "the kernel was killed after {} was sent and before it was answered; it may have been done, and the descriptor "
    "does not say that it is idempotent"
)


class Answers:
    """The modules and the hooks of a run, played from the log."""

    def __init__(self, log: Log, produced: Produced, real: Real, live: Live | None = None) -> None:
        self._log = log
        self._produced = produced
        self._real = real
        self._live = live
        self._modules = Modules()
        self.hooks = Hooks()
        self.isolation = RecordedIsolation(live.isolation if live else None, live.isolations if live else {})
        self.is_measured = False
        """Whether a module has a budget: the kernel measures it in a thread."""
        self._by_event: dict[str, Callable[[Entry], bool]] = {
            "module:reply": self._reply,
            "module:chunk": self._chunk,
            "module:invoke": self._result,
            "policy:answer": self.hooks.answer,
            "policy:request": self._describe_early,
            "mount:add": self._describe,
            "module:changed": self._describe,
            "hook:error": self._fail_hook,
        }
        self.events = (*self._by_event, "policy:decision", *REPORTED)

    def give(self, entry: Entry) -> bool:
        """Give the answer that an event tells of. False: nobody waits for it."""
        if entry.event in REPORTED and entry.module is not None and not is_description(entry):
            return self._report(entry)
        give = self._by_event.get(entry.event)
        return give is not None and give(entry)

    def give_up(self) -> None:
        """Let no connection wait for the end of its process any more."""
        for connection in self._modules.connections.values():
            connection.give_up()

    def waits(self, span_id: str) -> bool:
        """Tell whether a module is asked that has not answered."""
        return span_id in self._modules.calls

    def is_described(self, entry: Entry) -> bool:
        """Tell whether a module is asked what it is."""
        return _place(entry) in self._modules.descriptions

    def open_transport(self, descriptor: ModuleDescriptor, notify: Notify, host: Host) -> Connection | None:
        """Open a connection of the mount that began last. Raises what the transport of the run raised.

        ``None``: the module is to run for real.
        """
        begun = self._produced.mounting
        span_id, place = begun.span_id or "", _place(begun)
        if self._modules.live and self._live is not None and self._live.open_transport is not None:
            return self._live.open_transport(descriptor=descriptor, notify=notify, host=host)
        if self._modules.live or place[1] in self._real:
            return None
        real = None
        if self._live is not None:
            trusted = begun.read()["trusted"]
            real = LiveModule(self._live, place[1], descriptor, notify, host, trusted=trusted)
        told = self._told(span_id, place, real)
        if real is not None:
            real.isolation = told.connection.get("isolation")
        limits = descriptor.limits
        self.is_measured = self.is_measured or limits.memory_bytes is not None or limits.cpu_ms is not None
        connection = RecordedConnection(self._modules, place, notify, told, real)
        self._modules.connections[place] = connection
        return connection

    def _told(self, span_id: str, place: tuple[str, str], real: LiveModule | None) -> Told:
        """Find what the log tells of a mount."""
        added = self._log.find(lambda each: each.event == "mount:add" and each.span_id == span_id)
        if added is None and real is not None:
            return self._told_early(span_id, place, real.connection)
        data = added.read() if added is not None else {}
        if added is not None and added.status == "error" and "connection" not in data:
            raise failure_of(added.read_error())
        body = added.read_error() if added is not None else {}
        told, unenforced = data.get("connection", {}), data.get("unenforced", [])
        self.isolation.failure = body.get("message", "")
        if told.get("isolation"):
            self.isolation.learn(place, told["isolation"], *self._shown(span_id, unenforced))
            if body and not self._was_asked(span_id):
                self.isolation.refuse(place, failure_of(body))
        elif body and _lacks_isolation(body):
            self.isolation.is_used, self.isolation.works = True, False
        return Told(told, body, measured=not any(word.startswith("limits.") for word in unenforced))

    def _told_early(self, span_id: str, place: tuple[str, str], connection: Connection) -> Told:
        """Find what the log tells of a mount that had not ended when the kernel was killed."""
        told = {name: getattr(connection, name) for name in ("local", "confined", "endpoints", "unenforced")}
        asked = self._log.find(lambda each: each.span_id == span_id and each.event == "policy:request")
        shown = dict(asked.read().get("args", {}).get("isolation", {})) if asked is not None else {}
        if asked is not None and "name" in shown:
            told["isolation"] = shown.pop("name")
            self.isolation.learn(place, told["isolation"], asked.read().get("unenforced", []), shown)
        elif connection.local and not connection.confined:
            self.isolation.learn_live()
        return Told(told, {}, measured=connection.local)

    async def go_on(self, sent: Container[str | None]) -> None:
        """Start every module for real, and let it answer what it was asked. ``sent`` has the calls that it had got.

        What was sent is asked again only if that does no harm: policy, and what the descriptor says is idempotent.
        """
        self._modules.live = True
        self.isolation.go_on()
        started = ((each, each.real) for each in [*self._modules.open] if each.started)
        await asyncio.gather(*(each.go_on(real) for each, real in started if real is not None))
        for asked in [*self._modules.descriptions.values()]:
            asked.answer.set_result(None)
        for span_id, asked in [*self._modules.calls.items()]:
            real = asked.connection.real
            if span_id not in sent or asked.op == "on_event" or (real is not None and real.may_repeat(asked.op)):
                asked.answer.set_result(None)
            else:
                asked.answer.set_exception(Unreachable(_UNSURE.format(asked.op)))

    def has_time_limit(self, path: str) -> bool:
        """Tell whether a module at that path has a time limit of its own."""
        of_path = (each for (_, at), each in self._modules.connections.items() if at == path)
        return any(each.real is not None and each.real.has_time_limit for each in of_path)

    def _was_asked(self, span_id: str) -> bool:
        """Tell whether policy was asked about a mount before it ended."""
        steps = ("policy:request", "policy:decision", "mount:add")
        first = self._log.find(lambda each: each.span_id == span_id and each.event in steps)
        return first is not None and first.event != "mount:add"

    def _shown(self, span_id: str, unenforced: Sequence[str]) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Find what policy was told of a mount: what is not enforced, of one that was refused too, and what is open."""
        asked = self._log.find(lambda each: each.span_id == span_id and each.event in ("policy:request", "mount:add"))
        data = asked.read() if asked is not None else {}
        shown: dict[str, Any] = data.get("args", {}).get("isolation", {})
        return [*unenforced, *data.get("unenforced", ())], {name: shown[name] for name in shown if name != "name"}

    def _reply(self, entry: Entry) -> bool:
        """Let a module reply with system calls or events."""
        asked = self._modules.calls.pop(entry.span_id or "", None)
        if asked is None:
            return False
        asked.answer.set_result(reply_of(entry))
        return True

    def _chunk(self, entry: Entry) -> bool:
        asked = self._modules.calls.get(entry.span_id or "")
        if asked is None or asked.chunks is None:
            return False
        asked.chunks.put(entry.read()["chunk"], size_of(entry))
        return True

    def _result(self, entry: Entry) -> bool:
        """Let a module answer."""
        asked = self._modules.calls.pop(entry.span_id or "", None)
        if asked is None:
            return False
        if entry.status == "ok":
            asked.answer.set_result(Message(ok=True, result=entry.read().get("result"), size=size_of(entry)))
        else:
            asked.answer.set_exception(failure_of(entry.read_error()))
        return True

    def _describe(self, entry: Entry) -> bool:
        """Let a module describe itself, or fail to be mounted."""
        asked = self._modules.descriptions.pop(_place(entry), None)
        if asked is None:
            return False
        if entry.status == "ok":
            asked.answer.set_result(Message(ok=True, result=entry.read().get("description")))
        else:
            asked.answer.set_exception(failure_of(entry.read_error()))
        return True

    def _describe_early(self, entry: Entry) -> bool:
        """Let a module describe itself before policy is asked about its mount again, by a hook that came meanwhile."""
        asked = self._modules.descriptions.get(_place(entry))
        if asked is None or entry.read()["action"] != "mount":
            return False
        added = self._log.find(lambda each: each.event == "mount:add" and each.span_id == entry.span_id)
        told = added.read().get("description") if added is not None else None
        if told is not None:
            del self._modules.descriptions[_place(entry)]
            asked.answer.set_result(Message(ok=True, result=told))
        return told is not None

    def _fail_hook(self, entry: Entry) -> bool:
        """Let the hook fail that did."""
        name = entry.read()["hook"]

        def decides(each: Entry) -> bool:
            is_about_it = each.event == "policy:decision" and each.span_id == entry.span_id
            last = each.read()["hooks"][-1:] if is_about_it else []
            return bool(last) and last[0]["hook"] == name and (last[0].get("reason") or "").startswith(FAILED)

        is_asked = self.hooks.is_asked(entry.span_id)
        return is_asked and self.hooks.fail(
            name, failure_of(entry.read_error()), entry.span_id, self._log.find(decides)
        )

    def _report(self, entry: Entry) -> bool:
        """Report what happened to a module, as its transport did."""
        connection = self._modules.connections.get(_place(entry))
        if connection is None or not connection.started:
            return False
        error = failure_of(entry.read_error()) if entry.status == "error" else None
        connection.report(entry.event, entry.read(), error)
        return True


def is_description(entry: Entry) -> bool:
    """Tell a ``module:changed`` of what a module said when it was asked again from the report that it changed."""
    return entry.event == "module:changed" and (entry.status == "error" or "description" in entry.read())


def _lacks_isolation(body: Mapping[str, Any]) -> bool:
    return body["code"] == "forbidden" and "no isolation" in body["message"]


def _place(entry: Entry) -> tuple[str, str]:
    return entry.session_id or "", entry.module or ""


def reply_of(entry: Entry) -> Message:
    """Make the reply that a ``module:reply`` tells of."""
    data = entry.read()
    message = Message(
        result=data.get("result", UNSET), events=data.get("events"), size=data.get("size", size_of(entry))
    )
    if (pending := data.get("pending")) is not None:
        calls = [SystemCall(call["name"], call.get("args")) for call in pending["syscalls"]]
        message.pending = Pending(calls, Raw(msgspec.json.encode(pending["state"])))
    if "error" in data:
        message.error = ErrorBody(**data["error"])
    message.ok = data.get("ok", None if message.pending else message.error is None)
    return message


def size_of(entry: Entry) -> int:
    """Count the bytes of what an event tells of a message."""
    return len(bytes(entry.data)) if isinstance(entry.data, Raw) else 1
