"""The group of commands ``trace``: owns the group alone."""

from __future__ import annotations

import click

from .export import export
from .html.command import html
from .show import show

__all__ = ["trace"]


@click.group()
def trace() -> None:
    """Look at the log of a run."""


trace.add_command(show)
trace.add_command(export)
trace.add_command(html)
