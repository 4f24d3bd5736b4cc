"""The gate: one decision from the wanted capabilities and the answers of policy hooks (section 6).

Owns the decision: pure, total, deny by default. It asks no hook and enforces nothing: ``_sessions.policy`` collects the
answers, ``_syscalls.invoke`` and ``_syscalls.mount`` obey.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - help() reads the types of the fields
from itertools import islice
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

import msgspec

from .capability import WORDS_MAX, canonical, enforced_by_kernel, meet, reach, widest, without_part
from .errors import meant, short

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Verdict = Literal["allow", "deny", "abstain"]
Verdict.__doc__ = "What a policy hook may decide (protocol, section 6)."

Scope = Literal["call", "session"]
Scope.__doc__ = "How long an answer holds: for the call in question, or for the session (protocol, section 6)."


_KEYS = ("decision", "capabilities", "scope", "reason")
_KEYS_MAX = 16  # that are looked at

_ANSWERED_MAX = 16 * WORDS_MAX  # words of all hooks: to compare more would hold the event loop
REASON_MAX = 1024
"""The most characters of a hook's reason: it is in the log, and in errors."""


class Decision(TypedDict):
    """What a policy hook answers (protocol, section 6). An allow is of ``capabilities``, or of all wanted."""

    decision: Verdict
    capabilities: NotRequired[Sequence[str]]
    scope: NotRequired[Scope]
    reason: NotRequired[str]


class Answer(msgspec.Struct, frozen=True):
    """The answer of one policy hook. A hook that failed counts as ``deny``, with the failure as its reason."""

    hook: str
    decision: Verdict
    capabilities: tuple[str, ...] | None = None  # canonical, and perhaps wider than what is wanted; None: all wanted
    scope: Scope = "call"
    reason: str = ""
    may_grant: bool = True  # False for a hook that a fork registered itself: its allow adds nothing
    duration_ms: float | None = None  # that it took


class Outcome(msgspec.Struct, frozen=True):
    """The outcome. ``granted`` is no wider than the wanted capabilities, and empty when denied."""

    allowed: bool
    reason: str
    granted: tuple[str, ...] = ()
    scope: Scope = "call"


def read_answer(value: object, hook: str, base: Path | None, *, may_grant: bool) -> Answer:
    """Read a hook's answer strictly. Raises ``ValueError`` for a malformed one; the caller makes it a deny.

    Paths of an embedder's answer are below ``base``, with links resolved. A module's have to be absolute: ``base`` is
    ``None``, and no file is looked at.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object with a decision, got {type(value).__name__}")
    for key in islice(value, _KEYS_MAX):
        if key not in _KEYS and isinstance(key, str) and (near := meant(key, _KEYS)):
            raise ValueError(f"{short(key)} is unknown{near}")  # an allow may be wider than was meant
    decision, scope, reason = value.get("decision"), value.get("scope"), value.get("reason")
    if decision not in ("allow", "deny", "abstain"):
        raise ValueError(f"decision: expected allow, deny or abstain, got {short(decision)}")
    if scope not in (None, "call", "session"):
        raise ValueError(f"scope: expected call or session, got {short(scope)}")
    reason = "" if reason is None else reason
    if not isinstance(reason, str):
        raise ValueError(f"reason: expected text, got {type(reason).__name__}")
    if len(reason) > REASON_MAX:
        raise ValueError(f"reason: expected at most {REASON_MAX} characters, got {len(reason)}")
    reason.encode()  # raises ValueError for a lone surrogate
    capabilities = _read_capabilities(value["capabilities"], base) if "capabilities" in value else None
    return Answer(hook, decision, capabilities, scope or "call", reason, may_grant)


def decide(wanted: Sequence[str], answers: Sequence[Answer]) -> Outcome:
    """Decide: one deny denies; every capability wanted needs an allow; nothing wanted needs none.

    What is granted is what is wanted, and what every hook allows that allows at all. If that is nothing of a capability
    wanted, the decision is deny.

    The scope is ``session`` only if every hook said so: a hook that allows, or abstains, for this call alone wants to
    be asked about the next one.
    """
    for answer in answers:
        if answer.decision == "deny":
            return Outcome(allowed=False, reason=f"{answer.hook}: {answer.reason or 'denied'}")
    allows = [answer for answer in answers if answer.decision == "allow"]
    granting = [answer for answer in allows if answer.may_grant]
    if wanted and not granting:
        return Outcome(allowed=False, reason=f"no policy hook allowed {wanted[0]}")
    if sum(len(answer.capabilities or ()) for answer in allows) > _ANSWERED_MAX:
        return Outcome(allowed=False, reason=f"the policy hooks answered more than {_ANSWERED_MAX} capabilities in all")
    granted = _common(wanted, allows)
    lost = without_part(wanted, granted)
    if lost is not None:
        return Outcome(allowed=False, reason=_blame(lost, allows))
    if len(granted) > WORDS_MAX:
        return Outcome(allowed=False, reason=f"what was allowed is more than {WORDS_MAX} capabilities")
    session_wide = bool(granting) and all(answer.scope == "session" for answer in answers)
    return Outcome(
        allowed=True,
        granted=tuple(granted),
        scope="session" if session_wide else "call",
        reason="; ".join(answer.reason for answer in granting if answer.reason),
    )


def decide_again(granted: Sequence[str], answers: Sequence[Answer]) -> Outcome:
    """Decide about what goes on with what was granted: a deny ends it, and so does an allow of less than that."""
    decision = decide((), answers)
    if not decision.allowed:
        return decision
    for answer in answers:
        if answer.decision == "allow" and answer.capabilities is not None:
            lost = not_whole(granted, answer.capabilities)
            if lost is not None:
                return Outcome(allowed=False, reason=f"{answer.hook} did not allow {lost}, which was granted before")
    return Outcome(allowed=True, granted=tuple(granted), reason=decision.reason)


def not_whole(wanted: Iterable[str], granted: Sequence[str]) -> str | None:
    """Name the first capability that is wanted and not granted as a whole.

    What is done at once cannot be narrowed: a listener to every event that may hear some is none of these.
    """
    kept = reach(granted)
    return next((word for word in wanted if not kept.covers(word)), None)


def narrowed_below(running: Sequence[str], granted: Sequence[str]) -> str | None:
    """Name the first capability that a running module already has from its host and a decision does not grant.

    A decision about one invocation can narrow ``sys:``, which the kernel checks call by call. It cannot take a folder
    away from a process that has it. The caller has to turn such a decision into a denial.
    """
    return not_whole((word for word in running if not enforced_by_kernel(word)), granted)


def _read_capabilities(value: object, base: Path | None) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"capabilities: expected a list, got {type(value).__name__}")
    if len(value) > WORDS_MAX:
        raise ValueError(f"capabilities: expected at most {WORDS_MAX}, got {len(value)}")
    capabilities = []
    for n, word in enumerate(value):
        if not isinstance(word, str):
            raise ValueError(f"capabilities[{n}]: expected text, got {type(word).__name__}")
        try:
            capabilities.append(canonical(word, base, resolve=base is not None))
        except ValueError as error:
            raise ValueError(f"capabilities[{n}]: {error}") from None
    return tuple(capabilities)


def _common(wanted: Sequence[str], allows: Iterable[Answer]) -> list[str]:
    """Give what is wanted, and allowed by each hook that allows: one that may not grant narrows it all the same."""
    common = widest(wanted)
    for answer in allows:
        if answer.capabilities is not None:
            common = meet(common, answer.capabilities)
    return common


def _blame(word: str, allows: Iterable[Answer]) -> str:
    """Say who allowed nothing of a capability that is wanted."""
    hooks = [each.hook for each in allows if each.capabilities is not None and not meet((word,), each.capabilities)]
    return f"{hooks[0]} did not allow {word}" if hooks else f"of {word} there is no part that all policy hooks allowed"
