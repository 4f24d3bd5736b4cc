"""A module in the process of a program that mounts it (the transport ``inproc``): messages as calls.

Owns the requests of one mount. The program is trusted with the module, and the module with the program.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ._mailbox import Mailbox
from ._service import Service, tell_stuck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ._op import Op


class Inproc:
    """The answers to the requests of one mount, on the event loop that runs at the first one."""

    def __init__(self, name: str, ops: Mapping[str, Op], limits: Mapping[str, int], description: object) -> None:
        self._service = Service(name, ops, limits, lambda: tell_stuck(name))
        told = {"health": {"status": "ok"}, "describe": description}
        self._told = {method: b'{"ok":true,"result":%b}' % msgspec.json.encode(body) for method, body in told.items()}

    async def answer(self, method: str, params: bytes, send: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Answer one request with a message of section 2, JSON text. ``send`` gets each chunk before, as a message.

        A cancellation says that the caller has given up.
        """
        if method in self._told:
            return self._told[method]
        self._service.loop = asyncio.get_running_loop()
        mailbox = Mailbox(self._service.limit)
        try:
            self._service.invoke(params, mailbox)
            while True:
                message, last = await mailbox.next()
                if last:
                    return message
                await send(message)
        except BaseException:
            mailbox.cancel()
            raise

    async def close(self) -> None:
        """Let the threads end, and give up what waits for system calls."""
        self._service.close()
