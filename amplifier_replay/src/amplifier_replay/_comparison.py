"""What a replayed kernel has done, held against what the log has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ._differences import Difference, part, told
from ._meaning import Meaning
from ._produced import are_equal, as_told, text_of

if TYPE_CHECKING:
    from ._log import Entry
    from ._real import Real


class Comparison:
    """Of one replay. Where modules run for real, ids and times that these make up are compared by their meaning."""

    def __init__(self, real: Real) -> None:
        self._real = real
        self._meaning = Meaning()

    def check(self, done: Entry, entry: Entry) -> None:
        """Raise ``Difference`` unless what was done is what the log has."""
        done = as_told(done, entry)
        if not are_equal(done, entry) and not self._means(entry, done):
            of_mount = self._is_of_real_mount(entry)
            raise Difference(entry, *(("ok", told(done)) if of_mount else part(text_of(entry), text_of(done))))

    def _means(self, entry: Entry, done: Entry) -> bool:
        """Tell whether an event of a run with real modules means what the log has."""
        if not self._real:
            return False
        if self._is_of_real_mount(entry):
            return done.status == entry.status
        return self._meaning.same(msgspec.json.decode(text_of(entry)), msgspec.json.decode(text_of(done)))

    def _is_of_real_mount(self, entry: Entry) -> bool:
        """Tell whether an event is of the mount of a module that runs for real, perhaps by another descriptor."""
        if entry.module not in self._real:
            return False
        by_policy = entry.event in ("policy:request", "policy:decision") and entry.read().get("action") == "mount"
        return by_policy or entry.event in ("mount:pre_add", "mount:add")
