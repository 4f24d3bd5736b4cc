"""The modules that need the SDK, behind one import: it takes half a second, and is made when the first server starts.

Owns nothing but this import.
"""

from ._exchange import SessionEnded
from ._invocation import Invocation
from ._session import HttpClientSession, StdioClientSession

__all__ = ["HttpClientSession", "Invocation", "SessionEnded", "StdioClientSession"]
