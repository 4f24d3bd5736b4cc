"""Args that do not fit: made of an example that does, by a value of another type in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._schemas import own_misfit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["spoil"]

_VALUES: tuple[Any, ...] = ({"unexpected": True}, 0.5, "", [], True, None)
_MEMBERS_MAX = 32


def spoil(args: Mapping[str, Any], schema: object) -> dict[str, Any] | None:
    """Give args with one member of a type that the schema refuses, or ``None`` if it refuses none, or all.

    Nothing else is changed, and no member is left out: what an author's example may do does no harm.
    """
    for name in () if own_misfit(schema, dict(args)) else list(args)[:_MEMBERS_MAX]:
        for value in _VALUES:
            spoilt = {**args, name: value}
            if own_misfit(schema, spoilt):
                return spoilt
    return None
