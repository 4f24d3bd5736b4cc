"""One call that a check may make: only the author of a module knows which calls do no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@attrs.frozen
class Example:
    """An op, its args, and the code of the error that it answers with; ``None``: it succeeds."""

    op: str
    args: Mapping[str, Any]
    error: str | None = None

    def __str__(self) -> str:
        return f"op {self.op}" + (f" with the error {self.error}" if self.error else "")


def examples_of(given: Mapping[str, Mapping[str, Any]] | Sequence[Example]) -> list[Example]:
    """Give examples as a list; of a mapping, each op is called once with its args, and succeeds."""
    return list(given) if not hasattr(given, "items") else [Example(op, args) for op, args in given.items()]
