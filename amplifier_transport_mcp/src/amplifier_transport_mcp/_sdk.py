"""All that needs the SDK, behind one import: it takes half a second, and is made when the first server is started.

Owns nothing but that door.
"""

from ._http import SessionEnded
from ._life import LocalLife, RemoteLife
from ._talk import Talk

__all__ = ["LocalLife", "RemoteLife", "SessionEnded", "Talk"]
