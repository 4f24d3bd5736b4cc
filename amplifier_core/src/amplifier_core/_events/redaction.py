"""Redaction: takes out of an event what the embedder does not want to be seen, before anybody sees it (section 7).

Owns what of an event may change, and that a failure shows nothing. It writes nothing; the bus does.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import structs

from amplifier_core._protocol.errors import BadRequest, printable, short
from amplifier_core._protocol.json import decode_checked, encode_deeper

from .paths import PATHS_MAX, read_path, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amplifier_core._protocol.event import Event

    from .paths import Segment

_PARTS = ("data", "error")
_MARK = {"$redacted": True}
_TEXT = "redacted"  # in the place of a code or a message, which are text
_FAILURES = (Exception, asyncio.CancelledError)  # a plain function is cancelled by nobody else
_MORE = 16  # levels of an event around a value of a message


class Redaction:
    """What takes values out of the events of one kernel: a function of the embedder's, or JSON paths."""

    def __init__(self, redact: Callable[[dict[str, Any]], dict[str, Any]] | Sequence[str]) -> None:
        """Raises ``BadRequest`` for what is neither, and for a path that is not known or chooses nothing."""
        self._busy = False
        if callable(redact):
            _check_not_async(redact)
            self._change: Callable[[dict[str, Any]], dict[str, Any]] = partial(_ask, redact)
        else:
            self._change = partial(_take_out, _read_paths(redact))

    def apply(self, event: Event, line: bytes) -> tuple[Event, list[str]]:
        """Give an event, which is ``line`` in JSON, as everybody may see it, and what to warn of. Its envelope stays.

        If that fails, or is asked for by the embedder's own function, neither data nor error are shown.
        """
        faults: list[str] = []
        if not event.data and not event.error:
            return event, faults
        try:
            return structs.replace(event, **self._changed(line, faults)), faults
        except _FAILURES as failure:  # their text may tell what was to be hidden
            why = _reason(failure)
            faults.append(f"redact failed ({why}): {event.event} is in the log without its data and its error")
            error = {"code": "internal", "message": f"redact failed ({why}): data and error are left out"}
            return structs.replace(event, data=dict(_MARK), error=error), faults

    def _changed(self, line: bytes, faults: list[str]) -> dict[str, Any]:
        if self._busy:
            raise _NoEventError("it emits an event itself")
        told = decode_checked(line)
        self._busy = True
        try:
            asked = _question_in(told)
            if asked is not None:
                told["data"]["args"]["event"] = {**asked, **self._changed_question(asked, faults)}
            return self._change(told)
        finally:
            self._busy = False

    def _changed_question(self, asked: dict[str, Any], faults: list[str]) -> dict[str, Any]:
        """Change a question. A module may have made it up: if that fails, the rest of the event is shown all the same.

        The kernel asks no question with an error.
        """
        try:
            return self._change({name: value for name, value in asked.items() if name != "error"})
        except _FAILURES as failure:
            faults.append(f"redact failed ({_reason(failure)}): a policy:request is in the log without its data")
            return {"data": dict(_MARK)}


def _question_in(told: dict[str, Any]) -> dict[str, Any] | None:
    """Give the question in the call of a policy hook that is a module: an event, with the arguments in question."""
    try:
        asked = told["data"]["args"]["event"]
        return asked if asked["event"] == "policy:request" and type(asked["data"]) is dict else None
    except (KeyError, TypeError):
        return None


# --- by paths


def _read_paths(redact: object) -> list[Segment]:
    if not isinstance(redact, list | tuple):
        raise BadRequest(f"redact: expected a function or a list of JSON paths, got {short(redact)}")
    if not 0 < len(redact) <= PATHS_MAX:
        raise BadRequest(f"redact: expected 1 to {PATHS_MAX} JSON paths, got {len(redact)}")
    return [_read_path(text, f"redact[{n}]") for n, text in enumerate(redact)]


def _read_path(text: object, where: str) -> Segment:
    first = read_path(text, where)
    if not first.descends and (first.index is not None or first.name not in (*_PARTS, None)):
        raise BadRequest(f"{where}: {short(text)}: expected a path below $.data or $.error: the rest of an event stays")
    return first


def _take_out(paths: Sequence[Segment], told: dict[str, Any]) -> dict[str, Any]:
    parts = {name: told[name] for name in _PARTS if name in told}
    replace(parts, paths, _MARK)
    if "error" in parts:
        parts["error"] = _as_error(parts["error"])
    return parts


# --- by a function


class _NoEventError(Exception):
    """A function has not given the event. The text is the kernel's own, and quotes nothing."""


def _reason(failure: BaseException) -> str:
    """Say why a function failed, without the text of its exception."""
    return str(failure) if type(failure) is _NoEventError else printable(type(failure).__name__[:64])


def _check_not_async(function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise BadRequest("redact: expected a plain function, got an async one")


def _ask(function: Callable[[dict[str, Any]], object], told: dict[str, Any]) -> dict[str, Any]:
    """Give the data and the error that a function returns. Raises an exception for anything else."""
    failed = told.get("error") is not None
    given = function(told)
    if asyncio.iscoroutine(given):
        given.close()
    if type(given) is not dict:
        raise _NoEventError(f"expected the event from it, got {type(given).__name__}"[:128])
    parts = {"data": _as_json(given.get("data") or {})}
    if failed:
        parts["error"] = _as_error(_as_json(given.get("error") or {}))
    return parts


def _as_json(part: object) -> dict[str, Any]:
    if type(part) is not dict:
        raise _NoEventError("it returned data or an error that are no object")
    decoded: dict[str, Any] = decode_checked(encode_deeper(part, "redact", _MORE))
    return decoded


# --- both


def _as_error(error: dict[str, Any]) -> dict[str, Any]:
    """Give what is left of an error the shape of section 5."""
    texts = {name: text if type(text := error.get(name)) is str else _TEXT for name in ("code", "message")}
    details = error.get("details", {} if set(texts) & set(error) else _MARK)
    return {**texts, "details": details if type(details) is dict else _MARK} if details else texts
