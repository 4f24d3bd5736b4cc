"""The fields of ``transport`` that belong to MCP: ``roots``, ``sampling`` and ``elicitation``.

Owns their meaning and their errors, and which of the other fields there may be. Those of a process are read by the
stdio transport, those of HTTP by the HTTP transport.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from amplifier_transport_stdio import StdioFields
from amplifier_transport_stdio import read_fields as read_stdio_fields

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_transport_http import HttpFields

_LOCAL = ("command", "cwd", "env")
_REMOTE = ("url", "headers", "ca")
_INPUTS = ("roots", "sampling", "elicitation")
_RESERVED = "accept|cookie|last-event-id|mcp-.*"  # headers of MCP


@attrs.frozen
class Handler:
    """An operation of a mounted module that answers what a server asks for."""

    path: str
    op: str


@attrs.frozen
class Inputs:
    """What a server may ask for, and which module answers. The server is offered nothing else."""

    roots: tuple[str, ...] | None
    """Absolute paths; ``None``: the server is told of no roots at all."""
    handlers: Mapping[str, Handler]
    """By the method that the server calls."""


def read_fields(descriptor: ModuleDescriptor) -> tuple[StdioFields | HttpFields, Inputs]:
    """Read the fields strictly; raises ``BadRequest`` with the JSON path."""
    transport = descriptor.transport
    if ("command" in transport) == ("url" in transport):
        raise descriptor.misfit("", "expected either a command (a server here) or a url (a server elsewhere)")
    inputs = Inputs(_roots(descriptor), _handlers(descriptor))
    if "url" in transport:
        from amplifier_transport_http import read_fields as read_http_fields  # noqa: PLC0415 - it takes 60 ms

        known = ("type", *_REMOTE, *_INPUTS)
        return read_http_fields(descriptor, known, reserved=_RESERVED, query=True), inputs
    return read_stdio_fields(descriptor, ("type", *_LOCAL, *_INPUTS)), inputs


def _roots(descriptor: ModuleDescriptor) -> tuple[str, ...] | None:
    roots = descriptor.transport.get("roots")
    if roots is None:
        return None
    if not isinstance(roots, list | tuple) or not all(map(_is_text, roots)):
        raise descriptor.misfit(".roots", "expected a list of paths", roots)
    if descriptor.caller is not None:  # a module wrote them: no file is looked at
        return tuple(_absolute(descriptor, path) for path in roots)
    return tuple(str((descriptor.base / path).resolve()) for path in roots)


def _absolute(descriptor: ModuleDescriptor, path: str) -> str:
    if not os.path.isabs(path):  # noqa: PTH117 - the rule of `normpath`
        raise descriptor.misfit(".roots", "expected absolute paths, as a module mounts this", path)
    return os.path.normpath(path)


def _handlers(descriptor: ModuleDescriptor) -> dict[str, Handler]:
    found = {}
    for key, method in (("sampling", "sampling/createMessage"), ("elicitation", "elicitation/create")):
        value = descriptor.transport.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping) or value.keys() != {"path", "op"} or not all(map(_is_text, value.values())):
            raise descriptor.misfit(f".{key}", 'expected an object like {"path": "/mnt/providers/x", "op": "y"}', value)
        found[method] = Handler(value["path"], value["op"])
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value
