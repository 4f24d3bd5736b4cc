"""An STDIO echo that does as little as a module can, for benchmarks: what is measured is the kernel.

The replies to all lines of one read go out in one write. With msgspec the args are spliced from the request into the
reply unread; orjson comes next, json last.

    fast_echo.py [NAME]
"""

import os
import sys

NAME = sys.argv[1] if sys.argv[1:] else "fast_echo"
RESULTS = {
    "health": {"status": "ok"},
    "describe": {
        "name": NAME,
        "version": "0.1.0",
        "kind": "tool",
        "capabilities": [],
        "inputs": {"echo": {}},
        "outputs": {"echo": {}},
    },
}


def with_msgspec():
    import msgspec  # noqa: PLC0415  # only where it is installed

    class Params(msgspec.Struct):
        args: msgspec.Raw = msgspec.Raw(b"{}")

    class Request(msgspec.Struct):
        method: str
        id: msgspec.Raw = msgspec.Raw()
        params: Params | None = None

    decode = msgspec.json.Decoder(Request).decode
    results = {method: msgspec.json.encode(result) for method, result in RESULTS.items()}

    def answer(line):
        request = decode(line)
        if request.method == "invoke":
            return b'{"id":%b,"ok":true,"result":%b}\n' % (request.id, request.params.args)
        if request.method == "cancel":
            return b""
        return b'{"id":%b,"ok":true,"result":%b}\n' % (request.id, results[request.method])

    return answer


def with_codec(loads, dumps):
    def answer(line):
        request = loads(line)
        method = request["method"]
        if method == "cancel":
            return b""
        result = request["params"]["args"] if method == "invoke" else RESULTS[method]
        return dumps({"id": request["id"], "ok": True, "result": result}) + b"\n"

    return answer


def fastest():
    try:
        return with_msgspec()
    except ImportError:
        pass
    try:
        import orjson  # noqa: PLC0415  # as above

        return with_codec(orjson.loads, orjson.dumps)
    except ImportError:
        import json  # noqa: PLC0415  # as above

        return with_codec(json.loads, lambda reply: json.dumps(reply).encode())


def serve(answer):
    read, write = os.read, os.write
    unfinished = []  # the parts of a line that has not ended
    while data := read(0, 65536):
        if b"\n" not in data:
            unfinished.append(data)
            continue
        lines = data.split(b"\n")
        if unfinished:
            unfinished.append(lines[0])
            lines[0] = b"".join(unfinished)
            unfinished.clear()
        if rest := lines.pop():
            unfinished.append(rest)
        out = answer(lines[0]) if len(lines) == 1 else b"".join(map(answer, lines))
        while (written := write(1, out)) < len(out):
            out = out[written:]


if __name__ == "__main__":
    serve(fastest())
