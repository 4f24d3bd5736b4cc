"""A server whose every byte a test writes, and the descriptor of a module at a URL."""

import asyncio
import json
import ssl
from contextlib import suppress

from amplifier_core import ModuleDescriptor

DESCRIPTION = {"name": "raw", "version": "1.0.0", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}


def respond(body=b"", status=200, headers=(), reason="Whatever"):
    """Give the bytes of a response: ``body`` as it is, or as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"content-length: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


class Request:
    """One request as it arrived, and the connection to answer it on."""

    repeats_id = True
    """Whether a response says which request it answers, as a server does whose connections are kept."""

    def __init__(self, reader, writer, ended, head):
        self.reader = reader
        self.writer = writer
        self.ended = ended
        start, *lines = head.decode().rstrip().split("\r\n")
        self.method, self.path, _ = start.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = b""

    @property
    def params(self):
        return json.loads(self.body)

    async def send(self, data):
        """Write some bytes; the first response among them repeats the id of this request."""
        start, line, rest = data.partition(b"\r\n")
        final = start.startswith(b"HTTP/1.1 ") and start[9:10] != b"1" and line
        if final and self.repeats_id and "x-request-id" in self.headers:
            data = b"%b\r\nx-request-id: %b\r\n%b" % (start, self.headers["x-request-id"].encode(), rest)
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self):
        """Wait, in the middle of an answer, until the client has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self):
        self.writer.transport.abort()


class Server:
    """A real HTTP server on a free port; ``answer`` is called with each request, and writes what it likes."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.connections = 0
        self._tasks = set()

    @property
    def paths(self):
        return [request.path for request in self.requests]

    async def start(self, port=0, tls=None):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader, writer):
        """Make the task here: asyncio 3.11 asks one of its own for its exception, which raises if it was cancelled."""
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader, writer):
        self.connections += 1
        ended = asyncio.Event()
        try:
            await self._answer_all(reader, writer, ended)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.transport.abort()
            with suppress(ConnectionError, asyncio.CancelledError):  # `stop` may cancel this wait, too
                await writer.wait_closed()  # afterwards, to connect or to send fails
            ended.set()

    async def _answer_all(self, reader, writer, ended):
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            request = Request(reader, writer, ended, head)
            request.body = await reader.readexactly(int(request.headers["content-length"]))
            self.requests.append(request)
            await self.answer(request)


def describe_remote(url, *, name="raw", kind="tool", capabilities=(), transport=(), **fields):
    """Make the descriptor of a module at a URL."""
    return ModuleDescriptor.from_mapping(
        {
            "name": name,
            "kind": kind,
            "capabilities": list(capabilities),
            "transport": {"type": "http", "url": url, **dict(transport)},
            **fields,
        }
    )


def as_module(invoke, description=DESCRIPTION):
    """Answer ``health`` and ``describe`` as a module does, and ``invoke`` as given."""

    async def answer(request):
        if request.path.endswith("/invoke"):
            await invoke(request)
        else:
            await request.send(respond({"status": "ok"} if request.path.endswith("/health") else description))

    return answer


async def echo(request):
    """Give back the arguments."""
    await request.send(respond({"ok": True, "result": request.params["args"]}))


def certified(folder):
    """Make a certificate authority of one's own: its PEM file, and the server side's TLS for 127.0.0.1."""
    import trustme  # noqa: PLC0415  a dependency of these tests alone

    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "authority.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    return folder / "authority.pem", server
