"""Messages on their way through the SDK's HTTP transport, which sees their names alone.

Owns the names. The SDK would decode each message a second time: on the loop, however large or deep it is.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import mcp_types as types

from ._messages import failed

if TYPE_CHECKING:
    from mcp_types import JSONRPCMessage


class Parcel:
    """One message, and its size in bytes. It is there for as long as the response that it came with holds it."""

    def __init__(self, name: str, message: JSONRPCMessage, size: int) -> None:
        self.name = name
        self.message = message
        self.size = size

    def take(self) -> tuple[JSONRPCMessage, int]:
        """Give the message, and keep nothing of it."""
        message = self.message
        del self.message
        return message, self.size

    def label(self) -> bytes:
        """Give the message that goes through in its place: a reply for a reply, and a notification for all others."""
        if isinstance(self.message, types.JSONRPCResponse | types.JSONRPCError):
            return failed(self.message.id or 0, self.name).model_dump_json().encode()
        return types.JSONRPCNotification(jsonrpc="2.0", method=self.name).model_dump_json(exclude_unset=True).encode()


class Passage:
    """The messages of one client that are on their way."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)  # no server knows it, and so cannot name another's message
        self._count = 0
        self._parcels: WeakValueDictionary[str, Parcel] = WeakValueDictionary()

    def pack(self, message: JSONRPCMessage, size: int) -> Parcel:
        """Give a message a name."""
        self._count += 1
        parcel = Parcel(f"{self._nonce}:{self._count}", message, size)
        self._parcels[parcel.name] = parcel
        return parcel

    def unpack(self, message: JSONRPCMessage) -> tuple[JSONRPCMessage, int]:
        """Give the message that one from the SDK stands for, with its size; one that stands for none as it is."""
        name = message.error.data if isinstance(message, types.JSONRPCError) else getattr(message, "method", None)
        parcel = self._parcels.pop(name, None) if isinstance(name, str) else None
        return (message, 0) if parcel is None else parcel.take()
