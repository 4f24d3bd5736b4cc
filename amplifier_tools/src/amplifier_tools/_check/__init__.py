"""The subcommand ``check``: a module held against the protocol, on the wire where that can be seen."""

from ._command import check

__all__ = ["check"]
