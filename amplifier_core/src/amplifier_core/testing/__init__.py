"""For tests of modules and of programs that embed the kernel: a conformance check, a steady clock, seeded ids.

It has no fake of the kernel: the check uses the real transports.
"""

from ._check import Check
from ._module import check_module
from ._steady import SteadyClock, seeded_entropy

__all__ = ["Check", "SteadyClock", "check_module", "seeded_entropy"]
