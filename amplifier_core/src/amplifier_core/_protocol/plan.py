"""The plan that a session is created from (protocol, section 8).

Owns its shape. It does not know what a goal means: modules do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .errors import BadRequest, meant, short
from .json import NotJson, decode_checked, encode

_DOUBTS_MAX, _SHOWN = 16, 100


@attrs.frozen(unsafe_hash=False)
class Plan:
    """The goal of a session, and its inputs. The kernel keeps them and shows them; modules interpret them."""

    goal: str
    inputs: Mapping[str, Any] = attrs.field(factory=dict)
    unknown: tuple[str, ...] = attrs.field(default=(), eq=False, kw_only=True)
    """The fields that this version does not know. ``session:start`` lists them."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.goal, str):
            raise BadRequest(f"plan.goal: expected text, got {type(self.goal).__name__}")
        if not isinstance(self.inputs, Mapping):
            raise BadRequest(f"plan.inputs: expected an object, got {type(self.inputs).__name__}")
        try:
            encode(self.goal, "plan.goal")
            object.__setattr__(self, "inputs", decode_checked(encode(dict(self.inputs), "plan.inputs")))
        except NotJson as error:
            raise BadRequest(str(error)) from None

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Plan:
        """Read ``{"goal": …, "inputs": {…}}``. Raises ``BadRequest`` with the path of the wrong field."""
        if not isinstance(mapping, Mapping):
            raise BadRequest(f"plan: expected an object, got {type(mapping).__name__}")
        if "goal" not in mapping:
            typo = next((f"; is it meant by the unknown {short(name)}?" for name in mapping if _is_like_goal(name)), "")
            raise BadRequest(f"plan.goal: expected text, got nothing{typo}")
        unknown = tuple(str(name) for name in mapping if name not in ("goal", "inputs"))
        inputs = mapping.get("inputs")
        return cls(mapping["goal"], {} if inputs is None else inputs, unknown=unknown)

    def doubts(self) -> list[str]:
        """Say of each unknown field, a line each, that it has no effect, and which one may be meant."""
        some = self.unknown[:_DOUBTS_MAX]
        return [f"plan.{name[:_SHOWN]}: unknown, and without effect{meant(name, ('goal', 'inputs'))}" for name in some]


def _is_like_goal(name: object) -> bool:
    return isinstance(name, str) and bool(meant(name, ("goal",)))
