"""WebAssembly: modules that are WASI programs, confined on every system by the engine that runs them.

``open_transport`` is imported when it is asked for: the host program of a module imports this package too, and starts
in half the time without the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._transport import open_transport

__all__ = ["open_transport"]


def __getattr__(name: str) -> Any:
    if name == "open_transport":
        from ._transport import open_transport  # noqa: PLC0415

        return open_transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
