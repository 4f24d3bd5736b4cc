"""The place of a measurement: the CPU that both ends share, and the text that names the machine.

It measures nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path


def pin() -> int | None:
    """Keep this process and all later children on one CPU, and give its number."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def place(pinned: int | None) -> str:
    """Name the Python and the machine."""
    where = "not pinned to a CPU" if pinned is None else "both ends pinned to one CPU"
    return f"{python()} on {_processor()}, {platform.system()} {platform.machine()}, {where}"


def python() -> str:
    """Name this Python, and say whether it was optimised by a profile of its use (PGO) when it was built.

    Distributions of Linux and the installers for Windows do that. What ``configure`` was told says it of the others.
    """
    packaged = os.name == "nt" or (sys.platform == "linux" and sys.base_prefix == "/usr")
    optimised = packaged or "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    how = "with PGO" if optimised else "without PGO"
    return f"{platform.python_implementation()} {platform.python_version()} built {how}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "an unnamed processor")
