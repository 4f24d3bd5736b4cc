"""The module's reply in an HTTP response (protocol, section 4).

Owns the shapes of the bodies. It does no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import (
    LARGE,
    Message,
    NotJson,
    decode,
    decode_large,
    decode_message,
    decode_message_large,
)

from ._response import SUCCESS

if TYPE_CHECKING:
    from ._response import Response

_DESCRIPTION = frozenset(("name", "version", "kind", "capabilities", "inputs", "outputs"))


async def read_message(text: bytes, limit: int) -> Message:
    """Read one message, a large one in slices. Raises ``NotJson``."""
    return await decode_message_large(text, limit) if len(text) > LARGE else decode_message(text, limit)


async def read_reply(response: Response, method: str, limit: int) -> Message:
    """Read the reply in the body, with any status; without a reply, raise the error that the status stands for.

    ``limit`` is the size of the largest message, in bytes.
    """
    if response.fault is not None:
        raise response.fault
    try:
        reading = read_message(response.body, limit) if method == "invoke" else _read_bare(response, method, limit)
        message = await reading
    except NotJson as error:
        raise response.not_json(error) from None
    if not message.is_reply():
        raise response.error("none of the three shapes of section 2")
    return message


async def _read_bare(response: Response, method: str, limit: int) -> Message:
    """Read the answer to ``health`` or ``describe``, which has no ``ok`` around it; an error has its usual shape."""
    text = response.body
    value = await decode_large(text, limit) if len(text) > LARGE else decode(text, limit)
    if isinstance(value, dict) and value.get("ok") is False:
        del value  # it may be large, and is read anew
        return await read_message(text, limit)
    if response.status in SUCCESS or _is_bare(method, value):
        return Message(ok=True, result=value, size=len(response.body))
    raise response.error(f"no answer to {method}")


def _is_bare(method: str, value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("status") == "ok" if method == "health" else value.keys() >= _DESCRIPTION
