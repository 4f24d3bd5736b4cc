"""``python -m amplifier_tools``: the command where its script is not on the path."""

from ._cli import main

main(prog_name="amplifier-kernel")
