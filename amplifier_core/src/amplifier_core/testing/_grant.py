"""What a system call needs, held against what its module declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.capability import reach
from amplifier_core._syscalls.table import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core._protocol.descriptor import ModuleDescriptor


def missing_grant(name: str, args: Mapping[str, Any], descriptor: ModuleDescriptor) -> str:
    """Give the capability that a system call needs and the descriptor does not declare; "" if it declares it.

    The kernel refuses such a call, whatever policy allows. A ``name`` that is no system call needs no capability.
    """
    row = SystemCalls._table.get(name)  # noqa: SLF001 - the one table says which argument a pattern is held against
    if row is None:
        return ""
    value = args.get(row.resource) if row.resource else None
    needed = f"sys:{name}:{value}" if isinstance(value, str) else f"sys:{name}"
    return "" if reach(descriptor.capabilities).covers(needed) else needed
