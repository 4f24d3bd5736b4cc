"""The command ``call``: its options, its signals and its exit codes.

Owns the command line. `caller` makes the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import click

from amplifier_core import KernelError, ModuleDescriptor, load_descriptor
from amplifier_tools._text import printable

from .arguments import read_arguments
from .caller import Call
from .screen import Screen

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["call"]

_BY_SIGNAL = 128  # added to a signal's number, it is the exit code of what the signal ended
_SECONDS = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("descriptor")
@click.argument("op", required=False)
@click.argument("json", required=False)
@click.option("--args-file", type=click.File("rb"), help="Read the arguments from FILE; - is stdin.", metavar="FILE")
@click.option("--mount", "others", multiple=True, help="Mount this module too; repeat it.", metavar="DESCRIPTOR")
@click.option("--grant", "grants", multiple=True, help="Grant a capability to all modules; repeat it.", metavar="WORD")
@click.option("--grant-all", is_flag=True, help="Grant each module all that its descriptor asks for.")
@click.option("--trusted", is_flag=True, help="Run the modules as ordinary processes, without isolation.")
@click.option("--isolation", help="Confine the modules by this isolation.", metavar="NAME")
@click.option("--timeout", type=_SECONDS, help="For the call; else the descriptor's, or 30.", metavar="SECONDS")
@click.option("--chunks", is_flag=True, help='stdout: a line {"chunk": …} for each chunk, then {"result": …}.')
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Keep the log of events.", metavar="FILE")
@click.option("--quiet", is_flag=True, help="stderr has errors alone.")
def call(descriptor: str, others: tuple[str, ...], json: str | None, args_file: IO[bytes] | None, **given: Any) -> None:
    """Mount the module of a DESCRIPTOR file, invoke OP with the object JSON, and end the module.

    stdout has the result, as JSON. stderr has the chunks as they come and the tree of events. Without OP, the
    operations of the module are listed: a page on a terminal, else what it says of itself as JSON.

    The exit code is 0, 1 if the module answered with an error, or 2 if it could not be asked. Ctrl-C cancels.
    """
    asked = _load(descriptor)
    given["args"] = read_arguments(json, args_file, asked.message_bytes)
    _check_grants(asked, given["grants"])
    if given.pop("grant_all"):
        given["grants"] = None
    screen = Screen(quiet=given.pop("quiet"), chunks=given.pop("chunks"))
    logging.basicConfig(format="%(levelname)s: %(message)s")
    run = Call(descriptor=asked, others=tuple(map(_load, others)), **given).run(screen)
    sys.exit(asyncio.run(_until_signal(run)))


def _load(file: str) -> ModuleDescriptor:
    try:
        return load_descriptor(file)
    except KernelError as error:
        raise click.UsageError(printable(error.message)) from None


def _check_grants(asked: ModuleDescriptor, words: tuple[str, ...]) -> None:
    for word in words:
        try:
            attrs.evolve(asked, capabilities=(word,))
        except KernelError as error:
            raise click.UsageError(f"--grant: {printable(error.message.partition('capabilities[0]: ')[2])}") from None


async def _until_signal(run: Coroutine[Any, Any, int]) -> int:
    """Run to the end, which SIGINT and SIGTERM bring about in an orderly way, however often they come."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(run, name="call")
    ended_by: list[int] = []

    def end(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # on Windows asyncio.run handles Ctrl-C
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        return _BY_SIGNAL + (ended_by or [signal.SIGINT])[0]
