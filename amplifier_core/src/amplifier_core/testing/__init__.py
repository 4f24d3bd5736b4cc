"""For tests of modules and of programs that embed the kernel: a conformance check, a steady clock, seeded ids.

It has no fake of the kernel: the check uses the real transports. What a check of one's own needs is here too:
``open_connection``, ``choose_isolation`` and ``confine`` start a module as the kernel does, ``check_description`` and
``missing_grant`` judge as it does.
"""

from amplifier_core._protocol.description import check_description

from ._check import Check
from ._example import Example
from ._grant import missing_grant
from ._isolation import check_isolation
from ._module import check_module
from ._probe import ProbeModule
from ._sink import check_sink
from ._start import choose_isolation, confine, open_connection
from ._steady import SteadyClock, seeded_entropy
from ._transport import check_transport

__all__ = [
    "Check", "Example", "ProbeModule", "SteadyClock", "check_description", "check_isolation", "check_module",
    "check_sink", "check_transport", "choose_isolation", "confine", "missing_grant", "open_connection",
    "seeded_entropy",
]  # fmt: skip
