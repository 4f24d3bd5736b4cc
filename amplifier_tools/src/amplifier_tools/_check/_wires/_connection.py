"""Any other transport, through its ``Connection``: what it hands on of a reply, and no more, is looked at."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import Chunks, Host, NotJson, decode, encode, encode_message
from amplifier_core.testing import confine, open_connection

from ._lane import Answer, Lane, Wire

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Message
    from amplifier_tools._check._report import Report

    from ._lane import Request

__all__ = ["ConnectionWire"]


class ConnectionWire(Wire):
    """A module behind an installed transport. ``isolation`` and ``trusted`` are for one that runs on this host."""

    rules = ("CONN-01",)

    def __init__(self, descriptor: ModuleDescriptor, report: Report, isolation: str | None, *, trusted: bool) -> None:
        self._descriptor = descriptor
        self._report = report
        self._isolation = isolation
        self._trusted = trusted
        self._host = Host()
        self._is_first = True

    async def open(self) -> Lane:
        """Open a connection, and start the module."""
        connection, confinement = open_connection(self._descriptor, self._host), None
        runs_as = "elsewhere: nothing here confines it"
        if connection.local and connection.confined:
            runs_as = "confined by its transport to the capabilities that it declares"
        elif connection.local and self._trusted:
            runs_as = "trusted: an ordinary process, as --trusted says"
        elif connection.local:
            isolation, confinement = await confine(connection.launch(), self._descriptor, isolation=self._isolation)
            runs_as = f"confined by {isolation.name} to the capabilities that it declares"
        self._report.runs_as = runs_as
        try:
            await connection.start(self._descriptor.capabilities, confinement)
        except BaseException:
            await connection.close()
            raise
        first, self._is_first = self._is_first, False
        return ConnectionLane(connection, self._report, may_be_absent=first and not connection.local)

    async def close(self) -> None:
        """Close what connections share."""
        await self._host.close()


class ConnectionLane(Lane):
    """One connection. Of the invocations, each second one wants chunks: they may go another way.

    ``may_be_absent``: that the module is not there to answer the first request is no flaw of its own.
    """

    cancel_rule = "CONN-01"

    def __init__(self, connection: Connection, report: Report, *, may_be_absent: bool) -> None:
        super().__init__(report)
        self._connection = connection
        self._may_be_absent = may_be_absent
        self._wants_chunks = itertools.cycle((False, True))

    async def ask(self, request: Request) -> Answer:
        """Send a request, and give its reply as it would stand on a line of STDIO."""
        self.during = request.subject
        params = encode({} if request.params is None else dict(request.params), "params")
        may_be_absent, self._may_be_absent = self._may_be_absent, False
        try:
            asked = asyncio.create_task(self._await(request.method, params, self._chunks(request)))
            message = await self.wait(asked, request.seconds)
            line = encode_message(message)
            return Answer(reply=decode(line), line=line)
        except TimeoutError:
            self.broke("MSG-01", f"no answer within {request.seconds:g} s")
        except (Internal, NotJson) as error:
            self.broke("MSG-02", str(error))
        except Unreachable as error:
            if may_be_absent:
                raise
            self.broke("CONN-01", error.message)
        except KernelError as error:  # the transport's own word for an error of the module's protocol
            return Answer(reply=_failure(error))
        self.usable = False
        return Answer()

    async def _await(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Await a request in the task that makes it: what it gives may be no future that others can look at."""
        return await self._connection.request(method, params, chunks)

    def _chunks(self, request: Request) -> Chunks | None:
        if request.method != "invoke" or not next(self._wants_chunks):
            return None
        chunks = Chunks()
        chunks.discard()
        return chunks

    async def cancel(self, request: Request) -> bool:
        """Send a request, and cancel it: what the module answers then is the transport's."""
        self.during = f"{request.subject}, cancelled"
        params = encode(dict(request.params or {}), "params")
        task = asyncio.create_task(self._await(request.method, params))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    async def close(self, *, seen: bool) -> bool:  # noqa: ARG002 - how it ends is the transport's
        """End the module."""
        await self._connection.close()
        return True

    def stderr(self) -> str:
        """Give the end of stderr, if the transport knows it."""
        return str(self._connection.clues().get("stderr", ""))


def _failure(error: KernelError) -> dict[str, Any]:
    return {"ok": False, "error": error.body()}
