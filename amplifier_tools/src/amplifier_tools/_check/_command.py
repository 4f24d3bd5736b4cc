"""The subcommand ``check``: its options, its exit status, and where its reports go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from amplifier_core import KernelError, load_descriptor
from amplifier_tools._text import printable

from ._examples import read_examples
from ._probes import Probes
from ._report import Report
from ._reports import as_json, as_junit, print_report
from ._requirements import VERSIONS
from ._wires import open_wire

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.testing import Example

__all__ = ["check"]

_FLAWED, _NOT_RUN, _INTERRUPTED = 1, 2, 130
_FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
_STDOUT = Path("-")


@click.command()
@click.argument("descriptor", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--op",
    "examples",
    multiple=True,
    callback=read_examples,
    metavar="NAME=JSON[=CODE]",
    help="A call that does no harm: an op, its args, and the code of the error that it answers with, if it does.",
)
@click.option("--at-once", default=16, show_default=True, type=click.IntRange(0, 1000), help="Requests sent together.")
@click.option(
    "--timeout", default=5.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds an answer has."
)
@click.option("--trusted", is_flag=True, help="Run it as an ordinary process, and not confined.")
@click.option("--isolation", help="The isolation to confine it with, if several are installed.")
@click.option("--strict", is_flag=True, help="A broken SHOULD is a flaw, too.")
@click.option("--protocol", default=max(VERSIONS), show_default=True, type=click.Choice(list(VERSIONS)))
@click.option("--json", "json_file", type=_FILE, help="Write a report as JSON; -: to stdout.")
@click.option("--junit", "junit_file", type=_FILE, help="Write a report as JUnit's XML; -: to stdout.")
@click.option("-v", "--verbose", is_flag=True, help="Print every rule.")
@click.pass_context
def check(  # noqa: PLR0913 - they are the options
    ctx: click.Context,
    descriptor: Path,
    examples: list[Example],
    at_once: int,
    timeout: float,
    *,
    trusted: bool,
    isolation: str | None,
    strict: bool,
    protocol: int,
    json_file: Path | None,
    junit_file: Path | None,
    verbose: bool,
) -> None:
    """Check a module against the protocol, on the wire.

    DESCRIPTOR is a module's descriptor file. Operations run only if --op gives args: once, once cancelled, and as their
    share of the requests that are sent together. The exit status is 0 for a sound module, 1 for a flawed one, and 2 if
    the check could not be run.
    """
    report = Report(VERSIONS[protocol], protocol)
    try:
        module = load_descriptor(descriptor)
        asyncio.run(_run(module, examples, report, timeout, at_once, isolation, trusted=trusted))
        flawed = report.is_flawed(strict=strict)
        console = Console(stderr=_STDOUT in (json_file, junit_file), highlight=False)
        print_report(console, report, module, flawed=flawed, every=verbose)
        _write(json_file, as_json(report, module, flawed=flawed))
        _write(junit_file, as_junit(report, module, strict=strict))
    except (KernelError, OSError) as error:
        click.echo(f"amplifier-kernel check: could not be run: {printable(str(error))}", err=True)
        ctx.exit(_NOT_RUN)
    except KeyboardInterrupt:  # click's own status for it would say that the module is flawed
        ctx.exit(_INTERRUPTED)
    ctx.exit(_FLAWED if flawed else 0)


def _write(file: Path | None, text: str) -> None:
    if file == _STDOUT:
        click.echo(text, nl=False)
    elif file is not None:
        file.write_text(text, "utf-8")


async def _run(
    module: ModuleDescriptor,
    examples: list[Example],
    report: Report,
    seconds: float,
    at_once: int,
    isolation: str | None,
    *,
    trusted: bool,
) -> None:
    wire = open_wire(module, report, isolation, trusted=trusted)
    try:
        await Probes(module, examples, report, seconds, at_once).run(wire)
    finally:
        await wire.close()
