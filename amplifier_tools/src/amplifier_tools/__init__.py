"""The command ``amplifier-kernel`` for authors of modules. It has no public name: the command is the door."""
