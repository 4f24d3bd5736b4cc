"""The command ``amplifier-kernel``: owns the group alone. Each subcommand has a file or a folder of its own."""

from __future__ import annotations

import click

from ._call.command import call
from ._check import check
from ._trace.command import trace

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="amplifier-tools", prog_name="amplifier-kernel")
def main() -> None:
    """Work on modules of the Amplifier kernel from the shell."""


main.add_command(call)
main.add_command(check)
main.add_command(trace)
