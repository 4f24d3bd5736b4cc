"""What a module has to do, as stable rules: one set for each version of the protocol, frozen when it is published.

Owns the ids, the sections and the words. It does not know how a rule is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VERSIONS", "Requirement"]


@attrs.frozen
class Requirement:
    """One rule: its id, the section of PROTOCOL.md that has it, whether a module MUST or SHOULD keep it, its words."""

    id: str
    section: str
    level: Literal["MUST", "SHOULD"]
    text: str


_VERSION_1 = """
MSG-01      2         MUST    every request gets an answer
MSG-02      2         MUST    a reply is exactly one of the three shapes
MSG-03      2         MUST    a message is a chunk or a reply, never both
MSG-04      1         MUST    a request of 128 KiB is read
MSG-05      preamble  MUST    members that a module does not know are ignored
MSG-06      2         MUST    a request without params is one with empty params
MSG-07      1         MUST    a message is no larger than limits.message_bytes
ERROR-01    5         MUST    an error has a code of the right form, a message, and perhaps an object of details
ERROR-02    5         MUST    oom, budget_exceeded and unreachable are the kernel's codes alone
HEALTH-01   2         MUST    health answers {"status": "ok"}
DESCRIBE-01 2         MUST    a description fits its schema
DESCRIBE-02 2         MUST    name, kind and version are those of the descriptor
DESCRIBE-03 2         MUST    a description claims no capability that the descriptor does not declare
DESCRIBE-04 2         MUST    inputs and outputs are JSON Schemas, of 2020-12 if they name no other dialect
DESCRIBE-05 2         MUST    inputs and outputs name each operation
DESCRIBE-06 2         MUST    a description that names a version of the protocol names this one
OP-01       5         MUST    an unknown operation is unsupported_op
OP-02       2         MUST    an example answers as its author expects
OP-03       2         MUST    a result fits the module's own outputs
OP-04       2         SHOULD  the args of an example fit the module's own inputs
OP-05       5         SHOULD  args that do not fit are bad_request
OP-06       1         MUST    requests that are sent at once are all answered, each with its own reply
EVENT-01    7         MUST    an event of a reply has a name like namespace:verb, and an object as data
EVENT-02    8         MUST    an event of a reply has no name of the kernel's own
EVENT-03    2         MUST    a reply has at most 1000 events
PENDING-01  2         MUST    system calls that a module asks for fit their schema
PENDING-02  8         MUST    system calls that a module asks for are known
PENDING-03  6         MUST    system calls that a module asks for are capabilities that it declares
PENDING-04  2         MUST    a request that is resumed with failed calls is answered
HOOK-01     6         MUST    the answer of a policy hook is a decision
CANCEL-01   3         MUST    a request that is cancelled is answered within a second
CANCEL-02   3         MUST    a cancel has no reply of its own
CANCEL-03   4         MUST    a server goes on answering after a connection was closed
STDIO-01    3         MUST    stdout carries the protocol alone: no other text
STDIO-02    3         MUST    stdout carries the protocol alone: no other JSON
STDIO-03    3         MUST    a reply has the id of the request that it answers
STDIO-04    3         MUST    a request has one reply
STDIO-05    3         MUST    a line is one whole message
STDIO-06    3         MUST    a line has no byte order mark
STDIO-07    2         MUST    no chunk follows the reply
STDIO-08    preamble  MUST    a line is strict JSON in UTF-8
STDIO-09    3         MUST    a line feed ends a line on stdin, and no other character does
STDIO-10    3         MUST    a module runs until its stdin ends
STDIO-11    3         MUST    a module ends within a second after its stdin
HTTP-01     4         MUST    the body of a response is JSON
HTTP-02     4         MUST    health and describe answer the bare body
HTTP-03     4         MUST    a stream ends with its reply
HTTP-04     4         MUST    nothing follows the reply of a stream
HTTP-05     4         MUST    a stream is application/x-ndjson
HTTP-06     4         SHOULD  the content type of JSON is application/json
HTTP-07     4         SHOULD  the status of a reply that is ok is a success
HTTP-08     4         MUST    an x-request-id is repeated as it came
HTTP-09     4         MUST    a server answers each request with a whole response
CONN-01     5         MUST    a module goes on answering
"""


def _read(table: str) -> dict[str, Requirement]:
    rows = (line.split(maxsplit=3) for line in table.strip().splitlines())
    return {name: Requirement(name, section, _level(level), text) for name, section, level, text in rows}


def _level(word: str) -> Literal["MUST", "SHOULD"]:
    return "MUST" if word == "MUST" else "SHOULD"


VERSIONS: Mapping[int, Mapping[str, Requirement]] = {1: _read(_VERSION_1)}
"""The rules by the version of the protocol. A new version gets a table of its own; a published one stays as it is."""
