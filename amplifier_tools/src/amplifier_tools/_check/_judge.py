"""What a reply says, held against the schemas, the descriptor and the module's own description.

Owns that judgement, over every transport alike. It sends nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError
from amplifier_core.testing import check_description, missing_grant
from amplifier_tools._text import line_of

from ._schemas import misfit, own_misfit, schema_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor

    from ._wires import Answer, Lane

__all__ = ["Judge"]

_EVENTS_MAX = 1000
_VERSION = 1
_MAY_BE_NULL = ("ok", "error", "pending", "events", "chunk")
_KERNEL_CODES = ("oom", "budget_exceeded", "unreachable")
_SHOWN = 200  # characters


class Judge:
    """Judges the replies of one module. It knows the descriptor, and the description once that has come."""

    def __init__(self, descriptor: ModuleDescriptor) -> None:
        self._descriptor = descriptor
        self.description: Mapping[str, Any] = {}
        """What the module describes, as far as it is an object."""
        self._schemas: dict[tuple[str, str], Any] = {}  # those of the description that can be used, once looked at

    def reply(self, lane: Lane, answer: Answer, op: str = "") -> Mapping[str, Any] | None:
        """Look at the shape of a reply and at all its parts. Give it without what is absent, unless it has no outcome.

        A chunk beside it was for the wire to find.
        """
        if answer.reply is None:
            return None
        present = {name: part for name, part in answer.reply.items() if part is not None or name not in _MAY_BE_NULL}
        reply = {name: part for name, part in present.items() if name != "chunk"}
        lane.look("MSG-02")
        if (parts := _odd_shape(reply)) is not None:
            lane.broke("MSG-02", f"the reply is none of the three shapes: it has {parts}", line=answer.line, op=op)
            return None
        self._events(lane, reply, answer, op)
        if "pending" in reply:
            self._pending(lane, reply, answer, op)
        elif "error" in reply and self._is_odd(lane, reply["error"], answer, op):
            return None
        return reply

    def health(self, lane: Lane, answer: Answer) -> bool:
        """Look at the reply to ``health``."""
        reply = self.reply(lane, answer)
        if reply is None:
            return False
        if why := "the reply is no success" if "result" not in reply else misfit("health", reply["result"]):
            lane.broke("HEALTH-01", why, line=answer.line)
        return not why

    def describe(self, lane: Lane, answer: Answer) -> None:
        """Look at the reply to ``describe``, and keep the description."""
        reply = self.reply(lane, answer)
        if reply is None:
            return
        lane.look(*(f"DESCRIBE-{n:02}" for n in (1, 2, 3, 4, 6)))
        described: Any = reply.get("result")
        if isinstance(described, dict):
            self.description = described
            self._schemas.clear()
            described = {name: part for name, part in described.items() if part is not None}
            version = described.pop("protocol", _VERSION)
            if isinstance(version, bool) or version != _VERSION:
                lane.broke("DESCRIBE-06", f"protocol is {line_of(str(version), _SHOWN)}", line=answer.line)
        if why := "the reply is no success" if "result" not in reply else misfit("describe", described):
            lane.broke("DESCRIBE-01", why, line=answer.line)
            return
        self._compare(lane, described, answer)
        for name in ("inputs", "outputs"):
            for op, schema in described[name].items():
                if why := schema_fault(schema):
                    lane.broke("DESCRIBE-04", f"{name}: {why}", line=answer.line, op=line_of(op, _SHOWN))

    def ops(self, lane: Lane, ops: Sequence[str]) -> None:
        """Look whether ``inputs`` and ``outputs`` both name some ops, and all that one of them names."""
        inputs, outputs = (self.description.get(name) for name in ("inputs", "outputs"))
        if isinstance(inputs, dict) and isinstance(outputs, dict):
            for op in dict.fromkeys([*ops, *inputs, *outputs]):
                if missing := [name for name, known in (("inputs", inputs), ("outputs", outputs)) if op not in known]:
                    lane.broke("DESCRIBE-05", f"not in {' and '.join(missing)}", op=line_of(op, _SHOWN))

    def schema(self, name: str, op: str) -> Any:
        """Give a schema of the description, if it has one that can be used. Any value fits the one that it lacks."""
        if (name, op) not in self._schemas:
            schemas = self.description.get(name)
            schema = schemas.get(op, True) if isinstance(schemas, dict) else True
            self._schemas[name, op] = True if schema_fault(schema) else schema
        return self._schemas[name, op]

    def result(self, lane: Lane, answer: Answer, op: str) -> None:
        """Hold a result against the module's own ``outputs``."""
        lane.look("OP-03")
        if why := own_misfit(self.schema("outputs", op), (answer.reply or {})["result"]):
            lane.broke("OP-03", why, line=answer.line, op=op)

    def decision(self, lane: Lane, answer: Answer, op: str) -> None:
        """Look at the answer of a policy hook."""
        lane.look("HOOK-01")
        if why := misfit("policy-decision", (answer.reply or {})["result"]):
            lane.broke("HOOK-01", why, line=answer.line, op=op)

    def _compare(self, lane: Lane, described: Any, answer: Answer) -> None:
        try:
            check_description(described, self._descriptor, "the module")
        except Forbidden as error:
            lane.broke("DESCRIBE-03", error.message, line=answer.line)
        except KernelError as error:
            lane.broke("DESCRIBE-02", error.message, line=answer.line)

    def _is_odd(self, lane: Lane, error: object, answer: Answer, op: str) -> bool:
        """Look at an error, and tell whether it is none that a module may give."""
        lane.look("ERROR-01", "ERROR-02")
        if isinstance(error, dict):
            error = {name: part for name, part in error.items() if part is not None}
        if why := misfit("error", error):
            lane.broke("ERROR-01", why, line=answer.line, op=op)
        elif isinstance(error, dict) and error["code"] in _KERNEL_CODES:
            why = f"the code is {error['code']}"
            lane.broke("ERROR-02", why, line=answer.line, op=op)
        return bool(why)

    def _pending(self, lane: Lane, reply: Mapping[str, Any], answer: Answer, op: str) -> None:
        lane.look("PENDING-01", "PENDING-02", "PENDING-03")
        pending = reply["pending"]
        calls = pending.get("syscalls") if isinstance(pending, dict) else None
        for call in calls if isinstance(calls, list) else ():
            name = call.get("name") if isinstance(call, dict) else None
            if isinstance(name, str) and misfit("syscalls#/$defs/name", name):
                lane.broke("PENDING-02", f"there is no system call {line_of(name, _SHOWN)}", line=answer.line, op=op)
                return
        if why := misfit("pending", pending):
            lane.broke("PENDING-01", why, line=answer.line, op=op)
            return
        for call in pending["syscalls"]:
            if needed := missing_grant(call["name"], call.get("args") or {}, self._descriptor):
                why = f"the descriptor does not declare {line_of(needed, _SHOWN)}"
                lane.broke("PENDING-03", why, line=answer.line, op=op)

    def _events(self, lane: Lane, reply: Mapping[str, Any], answer: Answer, op: str) -> None:
        events = reply.get("events")
        if events is None:
            return
        lane.look("EVENT-01", "EVENT-02", "EVENT-03")
        if isinstance(events, list) and len(events) > _EVENTS_MAX:
            lane.broke("EVENT-03", f"the reply has {len(events)} events", line=answer.line, op=op)
        for event in events[:_EVENTS_MAX] if isinstance(events, list) else (events,):
            if fault := _fault_of(event):
                lane.broke(*fault, line=answer.line, op=op)


def _fault_of(event: object) -> tuple[str, str] | None:
    """Give the rule that an event breaks, and how."""
    if not isinstance(event, dict) or not isinstance(name := event.get("event"), str):
        return "EVENT-01", misfit("terms#/$defs/emitted", event)
    if not isinstance(event.get("data"), dict):
        return "EVENT-01", f"the event {line_of(name, _SHOWN)} has no object as data"
    return _fault_of_name(name)


@functools.lru_cache(1024)
def _fault_of_name(name: str) -> tuple[str, str] | None:
    if not misfit("event#/$defs/kernel_only", name):
        return "EVENT-02", f"the event {line_of(name, _SHOWN)} is the kernel's own"
    why = misfit("terms#/$defs/event_name", name)
    return ("EVENT-01", why) if why else None


def _odd_shape(reply: Mapping[str, Any]) -> str | None:
    """Name the parts of what is none of the three shapes; ``None`` for one of them."""
    parts = {name for name in ("result", "error", "pending") if name in reply}
    ok = reply.get("ok")
    if (ok, parts) in ((True, {"result"}), (False, {"error"}), (None, {"pending"})):
        return None
    told = [] if ok is None else [f"ok {line_of(str(ok).lower(), _SHOWN)}"]
    return ", ".join([*told, *sorted(parts)]) or "neither ok nor pending"
