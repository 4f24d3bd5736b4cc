"""One call: a kernel for it alone, the modules mounted, the operation invoked, all of it ended.

Owns the session and the policy of the command line. `screen` owns what is shown.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import Decision, Kernel, KernelError, ModuleDescriptor, Plan, Session, UnsupportedOp
from amplifier_tools._text import line_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from amplifier_core import Event

    from .screen import Screen

__all__ = ["FAILED", "UNUSABLE", "Call"]

FAILED, UNUSABLE = 1, 2
"""Exit codes: the module answered with an error; or it could not be asked."""

_OPS_SHOWN = 10
_MOUNT_SECONDS = 30.0


@attrs.frozen
class Call:
    """What the command line asks for. ``op``: ``None`` lists the operations. ``grants``: ``None`` grants all."""

    descriptor: ModuleDescriptor
    op: str | None
    args: dict[str, Any]
    others: tuple[ModuleDescriptor, ...]
    grants: tuple[str, ...] | None
    trusted: bool
    isolation: str | None
    timeout: float | None
    """Seconds."""
    log: Path | None

    async def run(self, screen: Screen) -> int:
        """Make the call, and return the exit code. Nothing is left running then, nor after a cancellation."""
        try:
            async with self._kernel(screen) as kernel:
                return await self._run(kernel, screen)
        except KernelError as error:  # the log cannot be opened, or is not complete
            screen.keep_error(error)
            return UNUSABLE
        finally:
            screen.finish()

    def _kernel(self, screen: Screen) -> Kernel:
        timeout = max(_MOUNT_SECONDS, self.timeout or 0.0)
        return Kernel(event_log=self.log or False, sinks=[screen], isolation=self.isolation, timeout=timeout)

    async def _run(self, kernel: Kernel, screen: Screen) -> int:
        plan = Plan(f"call {self.descriptor.name} {self.op or ''}".rstrip())
        async with await kernel.session.create(plan) as session:
            await session.register_hook("policy:request", CommandLine(self.grants))
            try:
                path = await self._mount_all(session, screen)
                description = await session.describe(path)
            except KernelError as error:
                screen.keep_error(error, *_hints(error))
                return UNUSABLE
            if self.op is None:
                screen.show_ops(description)
                return 0
            try:
                await self._invoke(session, path, self.op, screen)
            except KernelError as error:
                screen.keep_error(error, *_hints(error), *_known_ops(description, error))
                return FAILED
            return 0

    async def _mount_all(self, session: Session, screen: Screen) -> str:
        """Mount the modules, the one to be called last, and return its path."""
        path = ""
        for descriptor in (*self.others, self.descriptor):
            mounted = await session.mount(_place_of(descriptor), descriptor, trusted=self.trusted)
            path = mounted["path"]
            screen.show_trees()
        return path

    async def _invoke(self, session: Session, path: str, op: str, screen: Screen) -> None:
        async with session.stream(path, op, self.args, timeout=self.timeout) as stream:
            async for chunk in stream:
                screen.show_chunk(chunk)
            result = await stream.result()
        screen.show_trees()
        screen.show_result(result)


class CommandLine:
    """The policy of the command line: allows what it names, and ``None`` allows everything."""

    def __init__(self, words: tuple[str, ...] | None) -> None:
        self._words = words

    async def __call__(self, _: Event) -> Decision:
        """Answer a ``policy:request``."""
        if self._words is None:
            return {"decision": "allow", "scope": "session", "reason": "--grant-all"}
        return {
            "decision": "allow",
            "capabilities": self._words,
            "scope": "session",
            "reason": "--grant" if self._words else "",
        }


def _place_of(descriptor: ModuleDescriptor) -> str:
    return f"/mnt/{descriptor.kind}{'' if descriptor.kind == 'context' else 's'}"


def _hints(error: KernelError) -> list[str]:
    """Say which option of the command helps, where that is sure."""
    if error.replied or error.code != "forbidden":
        return []
    if "trusted=True" in error.message:
        return ["--trusted runs the modules without isolation"]
    if "cannot enforce" in error.message:  # no grant helps
        return []
    words = error.details.get("capabilities")
    return [f"--grant {shlex.quote(word)}" for word in words] if isinstance(words, list) else []


def _known_ops(description: Mapping[str, Any], error: KernelError) -> list[str]:
    """Say which operations there are, if the one that was asked for is not known."""
    ops = list(description["inputs"])
    if not isinstance(error, UnsupportedOp) or not ops:
        return []
    more = f" and {len(ops) - _OPS_SHOWN} more" if len(ops) > _OPS_SHOWN else ""
    return [f"it has {', '.join(map(line_of, ops[:_OPS_SHOWN]))}{more}"]
