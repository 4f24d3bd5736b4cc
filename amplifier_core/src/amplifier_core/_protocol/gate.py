"""The gate: one decision from the wanted capabilities and the answers of policy hooks (section 6).

Owns the decision: pure, total, deny by default. It asks no hook and enforces nothing: ``_sessions.policy`` collects the
answers, ``_syscalls.invoke`` and ``_syscalls.mount`` obey.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - help() reads the types of the fields
from itertools import islice
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

import msgspec

from .capability import WORDS_MAX, canonical, enforced_by_kernel, reach
from .errors import meant, short

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .capability import Reach

Verdict = Literal["allow", "deny", "abstain"]
Verdict.__doc__ = "What a policy hook may decide (protocol, section 6)."

Scope = Literal["call", "session"]
Scope.__doc__ = "How long an answer holds: for the call in question, or for the session (protocol, section 6)."


_KEYS = ("decision", "capabilities", "scope", "reason")
_KEYS_MAX = 16  # that are looked at

REASON_MAX = 1024
"""The most characters of a hook's reason: it is in the log, and in errors."""


class Decision(TypedDict):
    """What a policy hook answers (protocol, section 6). ``capabilities`` narrows an allow; left out, it is of all."""

    decision: Verdict
    capabilities: NotRequired[Sequence[str]]
    scope: NotRequired[Scope]
    reason: NotRequired[str]


class Answer(msgspec.Struct, frozen=True):
    """The answer of one policy hook. A hook that failed counts as ``deny``, with the failure as its reason."""

    hook: str
    decision: Verdict
    capabilities: tuple[str, ...] | None = None  # canonical; None: all wanted
    scope: Scope = "call"
    reason: str = ""
    may_grant: bool = True  # False for a hook that a fork registered itself: its allow adds nothing


class Outcome(msgspec.Struct, frozen=True):
    """The outcome. ``granted`` is no wider than the wanted capabilities, and empty when denied."""

    allowed: bool
    reason: str
    granted: tuple[str, ...] = ()
    scope: Scope = "call"


def read_answer(value: object, hook: str, wanted: Sequence[str], base: Path | None, *, may_grant: bool) -> Answer:
    """Read a hook's answer strictly. Raises ``ValueError`` for a malformed one; the caller makes it a deny.

    Paths of an embedder's answer are below ``base``, with links resolved. A module's have to be absolute: ``base`` is
    ``None``, and no file is looked at.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object with a decision, got {type(value).__name__}")
    for key in islice(value, _KEYS_MAX):
        if key not in _KEYS and isinstance(key, str) and (near := meant(key, _KEYS)):
            raise ValueError(f"{short(key)} is unknown{near}")  # an allow may be wider than was meant
    decision, scope, reason = value.get("decision"), value.get("scope", "call"), value.get("reason", "")
    if decision not in ("allow", "deny", "abstain"):
        raise ValueError(f"decision: expected allow, deny or abstain, got {short(decision)}")
    if scope not in ("call", "session"):
        raise ValueError(f"scope: expected call or session, got {short(scope)}")
    if not isinstance(reason, str):
        raise ValueError(f"reason: expected text, got {type(reason).__name__}")
    if len(reason) > REASON_MAX:
        raise ValueError(f"reason: expected at most {REASON_MAX} characters, got {len(reason)}")
    reason.encode()  # raises ValueError for a lone surrogate
    narrowed = _read_narrowing(value["capabilities"], wanted, base) if "capabilities" in value else None
    return Answer(hook, decision, narrowed, scope, reason, may_grant)


def decide(wanted: Sequence[str], answers: Sequence[Answer]) -> Outcome:
    """Decide: one deny denies; every capability wanted needs an allow; nothing wanted needs none.

    The scope is ``session`` only if every hook said so: a hook that allows, or abstains, for this call alone wants to
    be asked about the next one.
    """
    for answer in answers:
        if answer.decision == "deny":
            return Outcome(allowed=False, reason=f"{answer.hook}: {answer.reason or 'denied'}")
    allows = [answer for answer in answers if answer.decision == "allow" and answer.may_grant]
    narrowings = [(each.capabilities, reach(each.capabilities or ())) for each in allows]
    granted: dict[str, None] = {}  # in the order of their first appearance
    for capability in wanted:
        parts = [part for narrowing in narrowings for part in _allowed_part(capability, *narrowing)]
        if not parts:
            return Outcome(allowed=False, reason=f"no policy hook allowed {capability}")
        granted |= dict.fromkeys(parts)
    session_wide = bool(allows) and all(answer.scope == "session" for answer in answers)
    return Outcome(
        allowed=True,
        granted=tuple(_widest(granted)),
        scope="session" if session_wide else "call",
        reason="; ".join(answer.reason for answer in allows if answer.reason),
    )


def narrowed_below(running: Sequence[str], granted: Sequence[str]) -> str | None:
    """Name the first capability that a running module already has from its host and a decision does not grant.

    A decision about one invocation can narrow ``sys:``, which the kernel checks call by call. It cannot take a folder
    away from a process that has it. The caller has to turn such a decision into a denial.
    """
    kept = reach(granted)
    return next((word for word in running if not enforced_by_kernel(word) and not kept.covers(word)), None)


def _read_narrowing(value: object, wanted: Sequence[str], base: Path | None) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"capabilities: expected a list, got {type(value).__name__}")
    if len(value) > WORDS_MAX:
        raise ValueError(f"capabilities: expected at most {WORDS_MAX}, got {len(value)}")
    within = reach(wanted)
    narrowed = []
    for n, word in enumerate(value):
        if not isinstance(word, str):
            raise ValueError(f"capabilities[{n}]: expected text, got {type(word).__name__}")
        try:
            capability = canonical(word, base, resolve=base is not None)
        except ValueError as error:
            raise ValueError(f"capabilities[{n}]: {error}") from None
        if not within.covers(capability):
            raise ValueError(f"capabilities[{n}]: {short(word)} is not below anything that was wanted")
        narrowed.append(capability)
    return tuple(narrowed)


def _allowed_part(wanted: str, narrowed: Sequence[str] | None, kept: Reach) -> list[str]:
    if narrowed is None or kept.covers(wanted):
        return [wanted]
    below = reach((wanted,))
    return [capability for capability in narrowed if below.covers(capability)]


def _widest(granted: Iterable[str]) -> list[str]:
    """Drop each entry that another one covers."""
    reaches = {word: reach((word,)) for word in granted}
    return [
        word for word in reaches if not any(other.covers(word) for wider, other in reaches.items() if wider != word)
    ]
