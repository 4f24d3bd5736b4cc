"""A batch: the spans of one message.

Owns how many they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_SPANS, _BYTES = 128, 1024 * 1024
"""Spans of a message, and bytes of their lines. While it is written, the event loop waits for the interpreter."""


class Batch:
    """Spans that are sent together."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._bytes = 0

    def add(self, span: ReadableSpan, size: int) -> bool:
        """Add the span that was made of a line of that size. True: it is enough for a message."""
        self.spans.append(span)
        self._bytes += size
        return len(self.spans) >= _SPANS or self._bytes >= _BYTES
