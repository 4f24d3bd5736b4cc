"""``amplifier-kernel trace``: the log of a run, as people and other programs look at it."""
