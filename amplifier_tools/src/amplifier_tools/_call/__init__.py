"""``amplifier-kernel call``: an operation of a module, from the shell, with the tree of what happened."""
