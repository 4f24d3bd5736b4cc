"""The events of a kernel as OpenTelemetry spans and metrics: the sink that ``sinks=[{"type": "otel"}]`` names.

Owns the entry point, which the kernel loads.
"""

from collections.abc import Mapping
from typing import Any

from amplifier_core.hookspecs import Sink, hookimpl

from ._options import read_options
from ._sink import OtelSink

__all__ = ["open_sink"]


@hookimpl
def open_sink(options: Mapping[str, Any]) -> Sink:
    """Check the options and make a sink. It connects when there is something to send."""
    return OtelSink(read_options(options))
