"""One finding of a check: the rule that was looked at, and how it was broken, if it was."""

from __future__ import annotations

import attrs


@attrs.frozen
class Check:
    """One rule of the protocol (``section``) and how the module broke it: ``problem`` is one line, "" if it did not."""

    name: str
    section: str
    problem: str
