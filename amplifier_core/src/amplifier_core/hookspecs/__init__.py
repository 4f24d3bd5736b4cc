"""What a plugin implements: transports, event sinks and isolations.

A plugin is a module or an object whose functions carry ``@hookimpl``. An entry point of its distribution names it::

    [project.entry-points."amplifier_core.transports"]
    unixsocket = "my_package"

The name of the entry point is the ``transport.type`` of a descriptor or, in the group ``amplifier_core.sinks``, the
``type`` in the embedder's ``sinks=``. The kernel loads a plugin when it is named so. An isolation
(``amplifier_core.isolations``) that is the only one installed is also tried without being named, when a module is to be
isolated and the embedder chose none. A plugin imports what it needs from here and from ``amplifier_core``.
"""

from msgspec import UNSET

from amplifier_core._protocol.descriptor import read_file
from amplifier_core._protocol.errors import add_clues, causes
from amplifier_core._protocol.ids import Ids, RemoteParent, Span, traceparent
from amplifier_core._protocol.json import LARGE, NotJson, decode, decode_large, encode
from amplifier_core._protocol.message import (
    ErrorBody,
    Message,
    Pending,
    SystemCall,
    decode_message,
    decode_message_large,
    encode_message,
)

from ._chunks import Chunks
from ._fork import Forkable, close_socket, watch_forks
from ._host import Host
from ._isolation import AREAS, Confinement, Isolation, IsolationSpec
from ._launch import Launch
from ._lines import LineBuffer, LineTooLongError
from ._markers import ISOLATIONS, PROJECT, SINKS, TRANSPORTS, hookimpl
from ._program import why_not_started
from ._sink import Sink, SinkSpec
from ._tls import Tls, read_tls
from ._transport import Connection, Notify, TransportSpec, Usage

__all__ = [
    "AREAS", "ISOLATIONS", "LARGE", "PROJECT", "SINKS", "TRANSPORTS", "UNSET", "Chunks", "Confinement", "Connection",
    "ErrorBody", "Forkable", "Host", "Ids", "Isolation", "IsolationSpec", "Launch", "LineBuffer", "LineTooLongError",
    "Message", "NotJson", "Notify", "Pending", "RemoteParent", "Sink", "SinkSpec", "Span", "SystemCall",
    "Tls", "TransportSpec", "Usage", "add_clues", "causes", "close_socket", "decode", "decode_large", "decode_message",
    "decode_message_large", "encode", "encode_message", "hookimpl", "read_file", "read_tls", "traceparent",
    "watch_forks", "why_not_started",
]  # fmt: skip
