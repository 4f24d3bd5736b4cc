"""A lane: one conversation with a module, and the wire that opens lanes. Every transport has its own kind of both.

Owns what all kinds have in common: what a request is, what came for it, and which rule is blamed. It reads no bytes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amplifier_tools._check._report import Report

T = TypeVar("T")

__all__ = ["Answer", "Lane", "Request", "Wire"]


@attrs.frozen(kw_only=True)
class Request:
    """One request. ``seconds`` is the time that its answer may take, from the last answer to another one on."""

    method: str
    subject: str
    """What is asked, in words."""
    params: Mapping[str, Any] | None = None
    """``None``: they are left out, where the transport can do that."""
    seconds: float
    takes: float = 0.0
    """The seconds that its answer took before, as far as that is known."""
    op: str = ""
    """The operation that findings are about, "" if they are about none."""


@attrs.frozen(kw_only=True)
class Answer:
    """What came for one request."""

    reply: Mapping[str, Any] | None = None
    """The reply as it would stand on a line of STDIO; ``None``: none came, and the report says why."""
    line: bytes = b""
    """The bytes that have it."""

    @property
    def code(self) -> str | None:
        """The code of the error, if the reply is one and says it in text."""
        error = (self.reply or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, str) else None


class Lane(ABC):
    """One conversation with the module: its findings go to the report, with what was asked meanwhile."""

    cancel_rule: str
    """The rule that a module breaks which does not bear a cancel."""

    silent: bool = False
    """Whether a request that was cancelled had no reply, and nothing else that explains why."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._blame: Mapping[str, str] | str | None = None
        self.during: str = "its start"
        """What is asked now, in words."""
        self.heard: float = 0.0
        """When the last answer came, by the clock of the event loop."""
        self.usable: bool = True
        """Whether more can be asked here, without taking what belongs to an earlier request for an answer."""

    @abstractmethod
    async def ask(self, request: Request) -> Answer:
        """Send a request, and wait for its reply. Whatever is wrong on the way is in the report."""

    @abstractmethod
    async def cancel(self, request: Request) -> bool:
        """Send a request, and cancel it at once as the transport does. Tell whether its reply was not late."""

    async def cancel_nothing(self) -> None:  # noqa: B027 - most transports cannot
        """Cancel what is not in flight."""

    @abstractmethod
    async def close(self, *, seen: bool) -> bool:
        """End the conversation, and tell whether the module ended as it should; not ``seen``: at once."""

    async def wait(self, reply: asyncio.Future[T], seconds: float) -> T:
        """Wait until ``seconds`` have brought no answer to any request here. Raises ``TimeoutError``, and cancels."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not reply.done():
                left = max(began, self.heard) + seconds - loop.time()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait({reply}, timeout=left)
        finally:
            reply.cancel()
        self.heard = loop.time()
        return reply.result()

    def stderr(self) -> str:
        """Give the end of what the module has written to stderr, where that is known."""
        return ""

    def look(self, *ids: str) -> None:
        """Note that rules are looked at."""
        self._report.look(*ids)

    def broke(self, name: str, problem: str, *, line: bytes = b"", op: str = "") -> None:
        """Report that a rule was broken, or the one that is blamed in its place."""
        if self._blame is not None and self._report.status(name) != "broken":  # else it is broken by anything
            name = self._blame if isinstance(self._blame, str) else self._blame.get(name, name)
            self.usable = False  # what is left of it would be held against the next request
        self._report.broke(name, problem, op=op, during=self.during, line=line, stderr=self.stderr())

    @contextmanager
    def blaming(self, blame: Mapping[str, str] | str) -> Iterator[None]:
        """Blame another rule for what happens inside: one for all, or one for each that seems broken.

        A rule that was found broken before keeps the blame.
        """
        self._blame = blame
        try:
            yield
        finally:
            self._blame = None


class Wire(ABC):
    """How the module is reached. It says what it looks at, and opens lanes."""

    rules: tuple[str, ...]
    """The rules that it looks at, beside those that are the same over every transport."""

    @abstractmethod
    async def open(self) -> Lane:
        """Begin a conversation. Raises ``KernelError`` if the module cannot be started or reached."""

    @abstractmethod
    async def close(self) -> None:
        """Release what the lanes share, when all of them are closed."""
