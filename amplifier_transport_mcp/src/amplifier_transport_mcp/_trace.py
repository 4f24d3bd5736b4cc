"""The trace that a request belongs to, for the SDK of MCP.

Owns the context in which the SDK writes it. The SDK would write that of a span of OpenTelemetry in which the embedder's
code runs, and put a span of its own below that one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from opentelemetry import context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def within(meta: Mapping[str, str]) -> Iterator[None]:
    """Let the SDK continue the trace that ``meta`` names, if it names one."""
    token = context.attach(TraceContextTextMapPropagator().extract(meta))
    try:
        yield
    finally:
        context.detach(token)
