"""Secrets: what of a descriptor's ``transport`` nobody is shown, neither policy nor the log.

Owns what is taken for one. It does not know the transports: theirs are headers, variables, tokens and URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "…"
"""Stands for a secret."""

_NAMES = ("password", "secret", "token", "credential", "auth", "apikey", "api_key", "api-key")
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")  # each search ends at the next slash, so many of them take no longer


def without_secrets(transport: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a ``transport`` without secrets: of objects the keys, of URLs neither user and password nor the query."""
    return {name: HIDDEN if _is_secret(name) else _hide(value) for name, value in transport.items()}


def _is_secret(name: str) -> bool:
    return any(part in name.lower() for part in _NAMES)


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    if isinstance(value, list | tuple):
        return [_hide(each) for each in value]
    return _hide_in_url(value) if isinstance(value, str) and "://" in value else value


def _hide_in_url(text: str) -> str:
    text = _USERINFO.sub(f"{HIDDEN}@", text)
    query = text.find("?", text.index("://"))
    return text if query < 0 else f"{text[: query + 1]}{HIDDEN}"
