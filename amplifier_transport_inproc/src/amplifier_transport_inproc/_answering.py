"""An object that answers the messages of the protocol itself, as the ``Module`` of amplifier-module does.

Owns the shape of such an object.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from amplifier_core import Internal, KernelError
from amplifier_core.hookspecs import causes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._context import Sender


class Answering(Protocol):
    """What answers the requests of one mount, in messages of section 2 as JSON text."""

    async def answer(self, method: str, params: bytes, send: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Answer ``health``, ``describe`` or ``invoke`` with a reply such as ``{"ok": true, "result": …}``.

        ``await send(text)`` sends a ``{"chunk": …}`` before. A cancellation says that the caller has given up.
        """

    async def close(self) -> None:
        """Release everything, within some seconds."""


class InprocModule(Protocol):
    """The shape of an object that answers messages itself."""

    def inproc(self) -> Answering:
        """Give what answers the requests of one mount."""


class AnsweringObject:
    """What answers for such an object."""

    places: int | None = None

    def __init__(self, opened: Answering) -> None:
        self._opened = opened

    def begin(self, method: str, params: bytes, sender: Sender) -> asyncio.Future[bytes]:
        """Begin to answer one request, in a task."""
        return asyncio.get_running_loop().create_task(self._answer(method, params, sender), name=method)

    async def close(self) -> None:
        """Close it."""
        await self._opened.close()

    async def _answer(self, method: str, params: bytes, sender: Sender) -> bytes:
        try:
            return await self._opened.answer(method, params, sender)
        except KernelError:
            raise
        except (Exception, SystemExit) as error:  # a SystemExit would end the loop
            raise Internal(f"{method} raised {causes(error)[0]}", details={"causes": causes(error)}) from error
