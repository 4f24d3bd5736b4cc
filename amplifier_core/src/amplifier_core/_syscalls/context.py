"""A session's context: fragments of JSON by key (system calls ``context.get`` and ``context.set_fragment``).

Owns the encoding: values are kept as JSON text, so no caller has a reference into a session's context. A fork shares
the fragments with its parent until one of the two sets one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, short
from amplifier_core._protocol.json import NotJson, decode_checked, encode
from amplifier_core._sessions.current import current_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState

KEY_MAX = 256
"""The most characters of a fragment's key."""

KEYS_MAX = 1024
"""The most fragments in one session."""

FRAGMENTS_MAX = 16
"""All fragments of a session together may be as large as this many of the largest ones."""


def get(state: SessionState) -> dict[str, Any]:
    """Give ``{"fragments": {key: value}}``, in the order in which the keys were first set."""
    return {"fragments": {key: decode_checked(text) for key, text in read(state).items()}}


def read(state: SessionState, span: Span | None = None) -> Mapping[str, bytes]:
    """Give the fragments as they are kept."""
    state.check_call()
    state.record("context:get", span or current_span(state.runtime), status="ok", data={"keys": len(state.fragments)})
    return state.fragments


def set_fragment(state: SessionState, key: object, value: object, span: Span | None = None) -> dict[str, Any]:
    """Set one fragment; this session and its later forks see it. Raises ``BadRequest`` for what is not JSON."""
    state.check_call()
    if not isinstance(key, str) or not key:
        raise BadRequest(f"key: expected text, got {short(key)}")
    if len(key) > KEY_MAX:
        raise BadRequest(f"key: expected at most {KEY_MAX} characters, got {len(key)}")
    try:
        encode(key, "key")
        text = encode(value, "value")
    except NotJson as error:
        raise BadRequest(str(error)) from None
    limit = state.runtime.settings.fragment_bytes
    if len(text) > limit:
        raise BadRequest(f"value: expected at most {limit} bytes of JSON in one fragment, got {len(text)}")
    if key not in state.fragments and len(state.fragments) >= KEYS_MAX:
        raise BadRequest(f"key: expected at most {KEYS_MAX} fragments in one session")
    before = len(state.fragments.get(key, b""))
    total = state.fragments_bytes - before + len(text)
    if total > FRAGMENTS_MAX * limit:
        raise BadRequest(f"value: expected at most {FRAGMENTS_MAX * limit} bytes of JSON in all fragments, got {total}")
    if state.fragments_shared:
        state.fragments, state.fragments_shared = dict(state.fragments), False
    state.fragments[key], state.fragments_bytes = text, total
    span = span or current_span(state.runtime)
    state.record("context:set", span, status="ok", data={"key": key, "value": value})
    return {}
