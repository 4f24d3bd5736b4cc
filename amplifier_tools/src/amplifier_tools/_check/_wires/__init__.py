"""The ways in which a module is reached: each looks at as much of the wire as can be seen there."""

from ._lane import Answer, Lane, Request, Wire
from ._open import open_wire

__all__ = ["Answer", "Lane", "Request", "Wire", "open_wire"]
