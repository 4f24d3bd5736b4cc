"""Warnings: what a program that embeds the kernel should hear of even if it reads no log, by Python's ``logging``.

Owns how often. Others decide what is worth one, and the log has it all the same. Modules cause most of them, so none
can flood the program, and their text is bounded and printable.
"""

from __future__ import annotations

import logging

from amplifier_core._protocol.errors import printable

_logger = logging.getLogger("amplifier_core")
_WHO_MAX = 1024  # that are counted; of others nothing is said
_TEXT_MAX = 1000  # characters


class Warnings:
    """The warnings of one kernel. Call it with who is concerned, and with one line.

    ``quoting``: a line may quote what an event has in its data or its error.
    """

    def __init__(self, *, quoting: bool = True) -> None:
        self._counts: dict[str, int] = {}
        self._quoting = quoting

    def __call__(self, who: str, text: str, bare: str = "") -> None:
        """Warn: the first, the tenth, the hundredth time that it is about this one, and so on.

        ``bare`` says the same, if the text quotes an event: without that.
        """
        if bare and not self._quoting:
            text = f"{bare}: the log says more"
        count = self._counts.get(who, 0) + 1
        if count == 1 and len(self._counts) >= _WHO_MAX:
            return
        self._counts[who] = count
        if str(count).rstrip("0") == "1":
            more = f" (time {count})" if count > 1 else ""
            _logger.warning("%s%s", printable(text[:_TEXT_MAX]), more)
