"""The seeds of the fuzzing: valid inputs for each target, and the words that they are made of."""

import json

REPLY = b'{"id":"$ID","ok":true,"result":{"words":[2,null,-1.5e3,"\\u00e4"]}}'
FAILURE = b'{"id":"$ID","ok":false,"error":{"code":"mine","message":"no","details":{"a":1}}}'
PENDING = b'{"id":"$ID","pending":{"syscalls":[{"name":"invoke","args":{"path":"/mnt/tools/say"}}],"state":{"n":1}}}'
CHUNK = b'{"id":"$ID","chunk":{"n":1}}'
EVENTS = b'{"id":"$ID","ok":true,"result":1,"events":[{"event":"artifact:write","data":{"a":1}},{"event":"mount:add"}]}'
MESSAGES = [REPLY, FAILURE, PENDING, CHUNK, EVENTS]
LINES = [b"\n".join([b"banner", CHUNK, b"", b" \r", CHUNK, REPLY]), b"\n".join([PENDING, REPLY]), *MESSAGES]

STEER = b"\x01\x05\x07"
DESCRIPTORS = [
    json.dumps(fields).encode()
    for fields in (
        {
            "name": "wordcount",
            "kind": "tool",
            "version": "1.2.0-rc.1+7",
            "transport": {"type": "stdio", "command": ["node", "a.mjs"], "cwd": ".", "env": {"A": "b"}},
            "capabilities": [
                *("fs:read:./corpus", "fs:write:$tmp/a", "env:HOME", "net:connect:localhost:80"),
                *("net:listen:*", "sys:invoke:/mnt/*", "x-a:b:c"),
            ],
            "limits": {"timeout_ms": 30000, "memory_bytes": 268435456},
        },
        {
            "name": "remote",
            "kind": "hook",
            "transport": {"type": "http", "url": "https://[::1]:8080/m/", "headers": {"x-a": "b"}, "ca": "ca.pem"},
            "capabilities": [],
            "unknown": [1e5, None, True],
        },
    )
]
HTTP_BODY = b'{"ok":true,"result":{"n":7}}'
RESPONSES = [
    b"\x01\0\0HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(HTTP_BODY), HTTP_BODY),
    b"\x01\0\0HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n5\r\n<html\r\n0\r\n\r\n",
    b"\x01\0\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nconnection: close\r\n\r\n" + HTTP_BODY,
    b"\x01\0\0HTTP/1.1 307 Go\r\nlocation: /elsewhere/invoke\r\ncontent-length: 0\r\n\r\n",
    b"\x02\0\0content-encoding: gzip\r\ncontent-length: 20\r\n\r\n",
    b"\x03\0\0" + b"\n".join([b'{"chunk":1}', b'{"chunk":[2]}', HTTP_BODY]),
    b"\0\0\0HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(HTTP_BODY), HTTP_BODY),
]
SEEDS = {
    "framing": [b"\xff\x05\x07" + line for line in LINES],
    "message": MESSAGES,
    "descriptor": DESCRIPTORS,
    "reply": [b"\x32\0\0" + message for message in MESSAGES] + [b"\x65\0\x10//127.0.0.1:8080/m", b"\x32\x01\0{}"],
    "ndjson": [STEER + line for line in LINES] + [b"\0\x01\x02" + line for line in LINES],
    "stdio": LINES,
    "http": RESPONSES,
}
"""By target."""

WORDS = [
    *(b"\n", b"\r\n", b" ", b"\0", b"\xff", b"\xe2\x80\xa8", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"1e5", b"null"),
    *(b"18446744073709551616", b"9" * 400, b"-0", b"[" * 300, b"]" * 300, b'{"a":' * 300, b"{", b"}", b"[", b"]"),
    *(b'"', b",", b":", b'"id":"$ID"', b'"ok":true', b'"ok":false', b'"result":', b'"chunk":', b'"error":', b'"code":'),
    *(b'"message":', b'"pending":', b'"syscalls":', b'"name":', b'"args":', b'"state":', b'"events":', b'"event":'),
    *(b'"size":', b'"data":', b'"details":', b'"internal"', b'"timeout"', b'"invoke"', b"HTTP/1.1 ", b"HTTP/1.0 "),
    *(b"content-length: ", b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"content-encoding: gzip\r\n"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"location: ", b"//", b"@", b"..", b"*", b"$tmp", b"fs:read:", b"x-", b"sys:", b"%"),
]
"""What is put in, now and then."""
