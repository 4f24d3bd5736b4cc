"""The hooks of the transport that a descriptor names with ``"type": "wasm"``."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import hookimpl
from amplifier_transport_stdio import OrphanKiller

from ._cache import find_cache
from ._connection import WasmConnection
from ._fields import read_fields
from ._launcher import HostLauncher

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Host, Notify

__all__ = ["describe_host", "open_transport"]


@hookimpl
def describe_host() -> dict[str, Any]:
    """Say which engine runs the modules, and where their compiled code is kept."""
    cache = find_cache()
    return {"engine": f"wasmtime {version('wasmtime')}", "cache": cache.folder if cache.key else cache.problem}


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify, host: Host) -> WasmConnection:
    """Check the descriptor's ``transport`` and make a connection; the module is looked at later."""
    fields = read_fields(descriptor)
    launcher = HostLauncher(descriptor, fields, notify, host.shared(OrphanKiller))
    return WasmConnection(descriptor, launcher, notify)
