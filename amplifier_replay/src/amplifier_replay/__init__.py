"""Runs of the Amplifier kernel again, from their recorded logs."""

from ._differences import Difference
from ._log import UnusableLog
from ._replay import compare, replay
from ._replaying import replaying
from ._resume import OpenCall, Resumed, fork, resume

__all__ = [
    "Difference", "OpenCall", "Resumed", "UnusableLog", "compare", "fork", "replay", "replaying", "resume",
]  # fmt: skip
