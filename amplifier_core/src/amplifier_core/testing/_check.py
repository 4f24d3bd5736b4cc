"""One finding of a check: the rule that was looked at, and how it was broken, if it was."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - help() reads the types of the fields
from typing import Any

import attrs


@attrs.frozen
class Check:
    """One rule of the protocol (``section``) and how the module broke it: ``problem`` is one line, "" if it did not."""

    name: str
    section: str
    problem: str
    id: str = ""
    """The rule's stable id, as ``amplifier-kernel check`` names it; "" for a rule that is not about modules."""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    """What may explain the problem: the ``details`` of the error, or what the module wrote until no answer came."""
