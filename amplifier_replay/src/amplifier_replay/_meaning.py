"""Whether two values mean the same: ids and times that a module makes up in each run stand for those of the recording.

Owns what counts as an id or a time. One id stands for one other, wherever it comes again.
"""

from __future__ import annotations

import re
from typing import Any

_TOKENS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # UUID
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"  # ISO 8601
    r"|(?<![0-9a-fA-F])(?=[0-9]*[a-f])[0-9a-f]{16,64}(?![0-9a-fA-F])",  # hexadecimal
    re.IGNORECASE,
)
_SECONDS = 1e9, 1e10
_MILLISECONDS = 1e12, 1e13


class Meaning:
    """Compares values of a recording with those of its replay."""

    def __init__(self) -> None:
        self._twins: dict[str, str] = {}

    def matches(self, recorded: Any, now: Any) -> bool:
        """Tell the same as ``same``, and learn nothing of the ids in values that differ."""
        known = dict(self._twins)
        same = self.same(recorded, now)
        if not same:
            self._twins = known
        return same

    def same(self, recorded: Any, now: Any) -> bool:
        """Tell whether two values of JSON mean the same."""
        if isinstance(recorded, dict) and isinstance(now, dict):
            return recorded.keys() == now.keys() and all(self.same(recorded[key], now[key]) for key in recorded)
        if isinstance(recorded, list) and isinstance(now, list):
            return len(recorded) == len(now) and all(map(self.same, recorded, now))
        if isinstance(recorded, str) and isinstance(now, str):
            return recorded == now or self._same_text(recorded, now)
        return _same_scalar(recorded, now)

    def _same_text(self, recorded: str, now: str) -> bool:
        theirs, ours = _TOKENS.findall(recorded), _TOKENS.findall(now)
        alike = len(theirs) == len(ours) and _TOKENS.sub("", recorded) == _TOKENS.sub("", now)
        return alike and all(
            self._twins.setdefault(one, other) == other for one, other in zip(theirs, ours, strict=True)
        )


def _same_scalar(recorded: Any, now: Any) -> bool:
    if type(recorded) is type(now) and recorded == now:
        return True
    if isinstance(recorded, bool) or isinstance(now, bool):
        return False
    numbers = isinstance(recorded, int | float) and isinstance(now, int | float)
    return numbers and any(low <= recorded < high and low <= now < high for low, high in (_SECONDS, _MILLISECONDS))
