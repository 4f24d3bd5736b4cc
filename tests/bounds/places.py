"""The places: every field of every message that a module or a server sends, and what is put there.

Owns the list. ``hostile`` sends it, ``stage`` plays it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

KB, MB = 1000, 1_000_000
SIZES = (KB, MB, 30 * MB)

ANY = ("text", "wide", "escapes", "controls", "digits", "deep", "lists", "texts", "objects", "members")
TEXT = ("text", "controls")
SOME = ("text", "objects")


class Place(NamedTuple):
    """One place: the method that is answered, the answer, and the fillers of its ``@``. ``#`` is the request's id."""

    name: str
    method: str
    template: str
    fillers: tuple[str, ...] = SOME
    times: int = 1


def _json(value: Any) -> str:
    """Write a template: the text "@" becomes the place."""
    return json.dumps(value).replace('"@"', "@").replace('"#"', "#")


_REPLY: dict[str, tuple[str, ...]] = {
    '"ok":true,"result":@': ANY,
    '"ok":true,"result":{@:1}': TEXT,
    '"ok":@,"result":1': SOME,
    '"ok":true,"result":1,"more":@': ANY,
    '"ok":true,"result":1,@:1': TEXT,
    '"ok":false,"error":@': SOME,
    '"ok":false,"error":{"code":@,"message":"m"}': TEXT,
    '"ok":false,"error":{"code":"c","message":@}': (*TEXT, "wide"),
    '"ok":false,"error":{"code":"c","message":"m","details":{"x":@}}': ANY,
    '"ok":false,"error":{"code":"c","message":"m","details":{@:1}}': TEXT,
    '"ok":false,"error":{"code":"c","message":"m","details":@}': ("members",),
    '"ok":true,"result":1,"events":@': SOME,
    '"ok":true,"result":1,"events":[{"event":@,"data":{}}]': TEXT,
    '"ok":true,"result":1,"events":[{"event":"a:b","data":@}]': ("text", "members", "objects"),
    '"ok":true,"result":1,"events":[{"event":"a:b","data":{"x":@}}]': ANY,
    '"ok":true,"result":1,"events":[{"event":"a:b","data":{@:1}}]': TEXT,
    '"ok":true,"result":@,"events":[{"event":"a:b","data":{}}]': SOME,
    '"pending":{"syscalls":[{"name":"mounts"}],"state":@}': SOME,
    '"pending":{"syscalls":@}': SOME,
    '"pending":{"syscalls":[{"name":@}]}': TEXT,
    '"pending":{"syscalls":[{"name":"mounts","args":@}]}': ("text", "members"),
}

_CALLS: dict[str, tuple[dict[str, Any], ...]] = {
    "session.create": (
        {"plan": {"goal": "@", "inputs": {}}},
        {"plan": {"goal": "", "inputs": {"x": "@"}}},
        {"plan": {"goal": "", "inputs": {}, "more": "@"}},
    ),
    "session.fork": ({"parent_id": "@"},),
    "session.end": ({"session_id": "@"},),
    "unmount": ({"path": "@"}, {"path": "/mnt/tools", "name": "@"}),
    "mounts": ({"path": "@"}, {"session_id": "@"}, {"more": "@"}),
    "describe": ({"path": "@"},),
    "invoke": (
        {"path": "@", "op": "o", "args": {}},
        {"path": "/mnt/tools/echo", "op": "@", "args": {}},
        {"path": "/mnt/tools/echo", "op": "o", "args": {"x": "@"}},
        {"path": "/mnt/tools/echo", "op": "o", "args": {}, "timeout_ms": "@"},
    ),
    "emit": ({"event": "@", "data": {}}, {"event": "a:b", "data": {"x": "@"}}, {"event": "a:b", "data": "@"}),
    "register_hook": (
        {"event": "@", "endpoint_ref": "/mnt/tools/echo", "priority": 0},
        {"event": "a:b", "endpoint_ref": "@", "priority": 0},
        {"event": "a:b", "endpoint_ref": "/mnt/tools/echo", "priority": "@"},
    ),
    "context.set_fragment": ({"key": "@", "value": 0}, {"key": "k", "value": "@"}),
    "mount": ({"path": "@", "descriptor": {}}, {"path": "/mnt/tools", "descriptor": "@"}),
}
_DESCRIPTOR: dict[str, Any] = {"name": "x", "kind": "tool", "capabilities": []}
_DESCRIPTOR["transport"] = {"type": "stdio", "command": ["/bin/true"]}
_HTTP = {"type": "http", "url": "http://127.0.0.1:1/"}
_FIELDS: tuple[dict[str, Any], ...] = (
    *({field: "@"} for field in ("name", "kind", "version", "limits", "transport", "capabilities", "more")),
    {"capabilities": ["@"]},
    {"limits": {"memory_bytes": "@"}},
    {"limits": {"more": "@"}},
    *({"transport": {"type": "stdio", "command": ["/bin/true"], field: "@"}} for field in ("cwd", "env", "more")),
    {"transport": {"type": "@"}},
    {"transport": {"type": "stdio", "command": "@"}},
    {"transport": {"type": "stdio", "command": ["@"]}},
    {"transport": {"type": "stdio", "command": ["/bin/true", "@"]}},
    {"transport": {"type": "stdio", "command": ["/bin/true"], "env": {"X": "@"}}},
    *({"transport": {**_HTTP, field: "@"}} for field in ("url", "headers", "proxy", "ca", "more")),
    {"transport": {**_HTTP, "headers": {"x": "@"}}},
)
_DESCRIBED: tuple[dict[str, Any], ...] = (
    *({field: "@"} for field in ("name", "kind", "version", "capabilities", "inputs", "outputs", "more")),
    {"capabilities": ["@"]},
    {"inputs": {"op": "@"}},
    {"inputs": {"op": {"properties": "@"}}},
    {"outputs": {"op": {"description": "@"}}},
)
_DESCRIPTION = {"name": "m", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
_MIXED = ("text", "word", "path", "digits", "objects", "members")


def of_modules() -> Iterator[Place]:
    """Yield the places of a reply, a description and a system call, whatever the transport."""
    for body, fillers in _REPLY.items():
        yield Place(body, "invoke", body, fillers)
    for name, each in _CALLS.items():
        for args in each:
            yield _call(name, args)
    for fields in _FIELDS:
        yield _call("mount", {"path": "/mnt/tools", "descriptor": {**_DESCRIPTOR, **fields}})
    many = {"syscalls": [{"name": "describe", "args": {"path": "/mnt/tools/m"}}] * 1000}
    yield Place("a thousand system calls", "invoke", f'"pending":{_json(many)}', ("text",))
    for fields in _DESCRIBED:
        yield Place(f"describe {_json(fields)}", "describe", _json({**_DESCRIPTION, **fields}), _MIXED)
    for field in ("status", "more"):
        yield Place(f"health {field}", "health", _json({"status": "ok", field: "@"}))


def _call(name: str, args: dict[str, Any]) -> Place:
    body = f'"pending":{_json({"syscalls": [{"name": name, "args": args}]})}'
    return Place(body, "invoke", body, _MIXED)


def of_stdio() -> Iterator[Place]:
    """Yield what a module over STDIO can send: each place as a line, and what is no message."""
    for place in of_modules():
        body = place.template if place.method == "invoke" else f'"ok":true,"result":{place.template}'
        yield place._replace(template=f'{{"id":"#",{body}}}')
    yield Place("id", "invoke", '{"id":@,"ok":true,"result":1}\n', TEXT)
    yield Place("a line", "invoke", "@\n", (*ANY, "bare", "lines", "blank"))
    yield Place("a chunk", "invoke", '{"id":"#","chunk":@}\n', ANY)
    yield Place("many chunks", "invoke", '{"id":"#","chunk":@}\n', ("text",), 300)


def of_http() -> Iterator[Place]:
    """Yield what a module over HTTP can send: each place as a body, a line of NDJSON, and the parts of the head."""
    for place in of_modules():
        yield place._replace(template=f"{{{place.template}}}" if place.method == "invoke" else place.template)
    yield Place("a body", "invoke", "@", ("bare", "blank", "lines", "deep"))
    yield Place("a line", "invoke", "@\n", (*ANY, "bare", "lines", "blank"))
    yield Place("a chunk", "invoke", '{"chunk":@}\n{"ok":true,"result":1}\n', ANY)
    yield Place("many chunks", "invoke", '{"chunk":@}\n', ("text",), 300)
    head = "HTTP/1.1 200 OK\r\n"
    ok = 'content-length: 22\r\n\r\n{"ok":true,"result":1}'
    for name, template in {
        "a header": f"{head}x: @\r\n{ok}",
        "a header's name": f"{head}@: x\r\n{ok}",
        "a reason": f"HTTP/1.1 200 @\r\n{ok}",
        "content-type": f"{head}content-type: @\r\n{ok}",
        "an error's body": "HTTP/1.1 500 NO\r\nconnection: close\r\n\r\n@",
        "a redirect": "HTTP/1.1 302 NO\r\nlocation: http://127.0.0.1:1/@\r\ncontent-length: 0\r\n\r\n",
        "a chunk's extension": f"{head}transfer-encoding: chunked\r\n\r\n1;@\r\n",
        "a trailer": f"{head}transfer-encoding: chunked\r\n\r\n0\r\nx: @\r\n\r\n",
    }.items():
        yield Place(name, "invoke", template, ("bare", "text"))
    for name in ("content-length: @", "transfer-encoding: chunked\r\n\r\n@"):
        yield Place(name, "invoke", f"{head}{name}\r\n\r\n", ("digits",))
    yield Place("many headers", "invoke", f"{head}@{ok}", ("headers",))
    yield Place("responses without end", "invoke", "HTTP/1.1 100 Continue\r\nx: @\r\n\r\n", ("bare",), 1000)


_RESULT = '{"jsonrpc":"2.0","id":#,"result":%s}'


def of_mcp() -> Iterator[Place]:
    """Yield what a server of MCP can send, over either transport."""
    tool: dict[str, Any] = {"name": "go", "inputSchema": {"type": "object"}}
    tools: tuple[dict[str, Any], ...] = (
        *({field: "@"} for field in ("name", "title", "description", "inputSchema", "outputSchema", "annotations")),
        {"inputSchema": {"type": "object", "properties": "@"}},
        {"inputSchema": {"type": "object", "required": "@"}},
        {"inputSchema": {"type": "object", "properties": {"x": {"pattern": "@"}}}},
    )
    for fields in tools:
        yield Place(f"tool {_json(fields)}", "tools/list", _RESULT % _json({"tools": [{**tool, **fields}]}), _MIXED)
    yield Place("tools", "tools/list", _RESULT % '{"tools":@}')
    yield Place("nextCursor", "tools/list", _RESULT % _json({"tools": [tool], "nextCursor": "@"}), TEXT)
    started: dict[str, Any] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
    started["serverInfo"] = {"name": "m", "version": "1"}
    servers: tuple[dict[str, Any], ...] = (
        *({field: "@"} for field in ("protocolVersion", "capabilities", "serverInfo", "instructions", "more")),
        {"serverInfo": {"name": "@", "version": "1"}},
        {"serverInfo": {"name": "m", "version": "@"}},
    )
    for fields in servers:
        yield Place(f"initialize {_json(fields)}", "initialize", _RESULT % _json({**started, **fields}), _MIXED)
    for body, fillers in {
        '{"content":@}': SOME,
        '{"content":[{"type":"text","text":@}]}': (*TEXT, "wide", "escapes"),
        '{"content":[{"type":@}]}': TEXT,
        '{"content":[],"structuredContent":{"x":@}}': ANY,
        '{"content":[],"isError":@}': SOME,
        '{"isError":true,"content":[{"type":"text","text":@}]}': TEXT,
    }.items():
        yield Place(body, "tools/call", _RESULT % body, fillers)
    for body in ('{"code":@,"message":"m"}', '{"code":1,"message":@}', '{"code":1,"message":"m","data":@}'):
        yield Place(f"error {body}", "tools/call", f'{{"jsonrpc":"2.0","id":#,"error":{body}}}', _MIXED)
    yield Place("an id", "tools/call", '{"jsonrpc":"2.0","id":@,"result":{}}', _MIXED)


def of_mcp_stdio() -> Iterator[Place]:
    """Yield what a local server of MCP can send."""
    yield from of_mcp()
    for name, body in {
        "a request": '{"jsonrpc":"2.0","id":@,"method":"ping"}',
        "a request's method": '{"jsonrpc":"2.0","id":1,"method":@}',
        "a request's params": '{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"x":@}}',
        "a notification": '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":@}}',
        "progress": '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":@,"progress":1}}',
    }.items():
        yield Place(name, "tools/call", f"{body}\n", _MIXED)
        yield Place(f"{name} again and again", "tools/call", f"{body}\n", ("text",), 300)
    yield Place("a line", "tools/call", "@\n", (*ANY, "bare", "lines", "blank"))


def of_mcp_http() -> Iterator[Place]:
    """Yield what a remote server of MCP can send."""
    yield from of_mcp()
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    for name, lines in {
        "data": "data: @\n\n",
        "lines of data": "@\n\n",
        "an event": "event: @\ndata: {}\n\n",
        "an event's id": "id: @\ndata: {}\n\n",
        "retry": "id: 1\nretry: @\ndata: {}\n\n",
        "a comment": ": @\n\n",
        "a field": "@: x\n\n",
    }.items():
        yield Place(name, "tools/call", head + lines, ("bare", "digits", "text", "lines", "blank"))
    yield Place("an error's body", "tools/call", "HTTP/1.1 500 NO\r\nconnection: close\r\n\r\n@", ("bare", "text"))
    session = (
        'HTTP/1.1 200 OK\r\nmcp-session-id: @\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{"x":1}'
    )
    yield Place("mcp-session-id", "initialize", session, ("bare",))


def of_hooks() -> Iterator[Place]:
    """Yield what a module over STDIO that is a policy hook can answer."""
    for name, answer in {
        "an answer": "@",
        "decision": '{"decision":@}',
        "reason": '{"decision":"deny","reason":@}',
        "scope": '{"decision":"allow","scope":@}',
        "capabilities": '{"decision":"allow","capabilities":@}',
        "a capability": '{"decision":"allow","capabilities":[@]}',
        "more": '{"decision":"allow","more":@}',
    }.items():
        yield Place(name, "invoke", f'{{"id":"#","ok":true,"result":{answer}}}', _MIXED)


def of_nats() -> Iterator[Place]:
    """Yield what a worker of NATS can send: each place as a message, its headers, and what it says beside a reply."""
    for place in of_modules():
        body = place.template if place.method == "invoke" else f'"ok":true,"result":{place.template}'
        yield place._replace(template=f"{{{body}}}")
    yield Place("a message", "invoke", "@", (*ANY, "bare", "blank"))
    yield Place("a chunk", "invoke", '{"chunk":@}\n', ANY)
    yield Place("many chunks", "invoke", '{"chunk":@}\n', ("text",), 300)
    hosts = ("@", '{"isolation":@}', '{"isolation":"i","granted":@}', '{"isolation":"i","unenforced":@}', '{"more":@}')
    for host in hosts:
        template = f'{{"ok":true,"result":{_json(_DESCRIPTION)},"host":{host}}}'
        yield Place(f"host {host}", "describe", template, ("text", "digits", "deep", "texts", "objects", "members"))
    for name, fields, data in (
        ("a word", "Amplifier: @", ""),
        ("an offset", "Amplifier: part @ 9", "x"),
        ("a total", "Amplifier: part 0 @", "x"),
        ("what was read", "Amplifier: read @", ""),
        ("dropped chunks", "Amplifier-Dropped: @", '{"ok":true,"result":1}'),
        ("a header", "x: @", '{"ok":true,"result":1}'),
        ("a header's name", "@: x", '{"ok":true,"result":1}'),
    ):
        yield Place(name, "invoke", f"NATS/1.0\r\n{fields}\r\n\r\n{data}", ("bare", "digits"))
    yield Place("many headers", "invoke", 'NATS/1.0\r\n@\r\n{"ok":true,"result":1}', ("headers",))
    failed = "NATS/1.0\r\nAmplifier: failed\r\n\r\n"
    for body in ("@", '{"code":@,"message":"m"}', '{"code":"oom","message":@}'):
        yield Place(f"failed {body}", "invoke", failed + body, _MIXED)
    yield Place("failed details", "invoke", failed + '{"code":"oom","message":"m","details":{"x":@}}', ANY)
    for word in ("alive", "read 1", "part 0 9"):
        yield Place(
            f"{word} again and again", "invoke", f"NATS/1.0\r\nAmplifier: {word}\r\nx: @\r\n\r\n", ("bare",), 300
        )


PLACES = {
    "hook": of_hooks,
    "stdio": of_stdio,
    "http": of_http,
    "mcp": of_mcp_stdio,
    "mcp-http": of_mcp_http,
    "nats": of_nats,
}
"""By the name of the transport."""
