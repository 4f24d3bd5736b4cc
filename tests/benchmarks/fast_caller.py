"""An STDIO module that calls the kernel and streams, at the least cost, so that a benchmark measures the kernel.

It has one thread. It copies what it passes on into its replies without decoding it.

    fast_caller.py [NAME]

turns   {"count": n, "syscall": …}             makes one call a turn, n times
relay   {"path", "op", "args"}                 invokes that, and replies with its result or its error
stream  {"count": n, "chunk": …, "alone"?}     sends a chunk n times; alone: each must be read before the next is sent
hold    {"chunk": …}                           sends a chunk, and replies when it is cancelled or by `finish`
finish  {}                                     replies to all that is held
"""

import fcntl
import os
import sys
import termios

import msgspec

_BLOCK = 64 * 1024  # the size of a pipe
_PATIENCE = 10_000  # looks at the pipe: a reader that reads nothing for milliseconds has gone
_yield = getattr(os, "sched_yield", lambda: None)


class Resume(msgspec.Struct):
    state: msgspec.Raw
    results: list[msgspec.Raw]


class Params(msgspec.Struct):
    id: str = ""
    op: str = ""
    args: msgspec.Raw = msgspec.Raw()
    resume: Resume | None = None


class Request(msgspec.Struct):
    method: str
    id: str = ""
    params: Params | None = None


class Turns(msgspec.Struct):
    count: int
    syscall: msgspec.Raw


class Chunks(msgspec.Struct):
    chunk: msgspec.Raw
    count: int = 1
    alone: bool = False


_request = msgspec.json.Decoder(Request).decode
_turns = msgspec.json.Decoder(Turns).decode
_chunks = msgspec.json.Decoder(Chunks).decode
_held: dict[str, None] = {}


def turns(id_: str, params: Params) -> bytes:
    wanted = _turns(params.args)
    done = 0 if params.resume is None else int(bytes(params.resume.state)) + 1
    if done == wanted.count:
        return _ok(id_, b"%d" % done)
    return b'{"id":"%b","pending":{"syscalls":[%b],"state":%d}}\n' % (id_.encode(), wanted.syscall, done)


def relay(id_: str, params: Params) -> bytes:
    if params.resume is None:
        call = b'{"id":"%b","pending":{"syscalls":[{"name":"invoke","args":%b}]}}\n'
        return call % (id_.encode(), params.args)
    return b'{"id":"%b",%b\n' % (id_.encode(), bytes(params.resume.results[0])[1:])


def stream(id_: str, params: Params) -> bytes:
    wanted = _chunks(params.args)
    line = _chunk(id_, wanted)
    if wanted.alone:
        for _ in range(wanted.count):
            write(line)
            _wait_until_read()
    else:
        whole, rest = divmod(wanted.count, each := _BLOCK // len(line))
        block = line * each
        for _ in range(whole):
            write(block)
        write(line * rest)
    return _ok(id_, b"%d" % wanted.count)


def hold(id_: str, params: Params) -> bytes:
    _held[id_] = None
    return _chunk(id_, _chunks(params.args))


def finish(id_: str, params: Params) -> bytes:
    replies = [_ok(held, b"0") for held in _held]
    _held.clear()
    return b"".join((*replies, _ok(id_, b"%d" % len(replies))))


_OPS = {"turns": turns, "relay": relay, "stream": stream, "hold": hold, "finish": finish}


def answer(line: bytes) -> bytes:
    request = _request(line)
    params = request.params or Params()
    if request.method == "invoke":
        return _OPS[params.op](request.id, params)
    if request.method == "cancel":
        return _ok(params.id, b"0") if _held.pop(params.id, 0) is None else b""
    return _ok(request.id, _RESULTS[request.method])


_RESULTS = {
    "health": b'{"status":"ok"}',
    "describe": msgspec.json.encode(
        {
            "name": sys.argv[1] if sys.argv[1:] else "fast_caller",
            "version": "0.1.0",
            "kind": "orchestrator",
            "capabilities": [],
            "inputs": {op: {} for op in _OPS},
            "outputs": {op: {} for op in _OPS},
        }
    ),
}


def _wait_until_read() -> None:
    """Wait until the reader has read all. On Linux each end of a pipe tells how much is left in it."""
    for _ in range(_PATIENCE):
        if not any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))):
            return
        _yield()


def _ok(id_: str, result: bytes) -> bytes:
    return b'{"id":"%b","ok":true,"result":%b}\n' % (id_.encode(), result)


def _chunk(id_: str, wanted: Chunks) -> bytes:
    return b'{"id":"%b","chunk":%b}\n' % (id_.encode(), wanted.chunk)


def write(data: bytes) -> None:
    written = os.write(1, data)
    if written < len(data):
        view = memoryview(data)
        while view := view[written:]:
            written = os.write(1, view)


def serve() -> None:
    unfinished = b""
    while data := os.read(0, _BLOCK):
        *lines, unfinished = (unfinished + data).split(b"\n")
        if out := answer(lines[0]) if len(lines) == 1 else b"".join(map(answer, lines)):
            write(out)


if __name__ == "__main__":
    serve()
