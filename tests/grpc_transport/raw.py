"""HTTP/2 servers that need not keep to gRPC: each invocation is answered frame by frame."""

import asyncio
import contextlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from tests.grpc_transport.servers import DESCRIPTION, SERVING, ok, params_of

HEADERS = ((":status", "200"), ("content-type", "application/grpc"))
TRAILERS = (("grpc-status", "0"),)
FRAME = 16_000  # bytes of a frame
HEADERS_FRAME, GOAWAY, CONTINUATION = 1, 7, 9
END_STREAM, END_HEADERS = 1, 4


def frame(message, packed=0):
    """Put a message into gRPC's frame."""
    return bytes((packed,)) + len(message).to_bytes(4, "big") + message


class Call:
    """One call, as the server sees it."""

    def __init__(self, peer, stream, path):
        self.peer = peer
        self.stream = stream
        self.path = path
        self.room = asyncio.Event()
        self.body = b""
        self.gone = asyncio.Event()

    @property
    def params(self):
        return params_of(self.body[5:])

    async def headers(self, headers=HEADERS, *, end=False):
        self.peer.http2.send_headers(self.stream, headers, end_stream=end)
        await self.peer.flush()

    async def data(self, data, *, end=False):
        while data:
            window = self.peer.http2.local_flow_control_window(self.stream)
            size = min(window, self.peer.http2.max_outbound_frame_size, len(data))
            if not size:
                self.room.clear()
                await self.room.wait()
                continue
            self.peer.http2.send_data(self.stream, data[:size], end_stream=end and size == len(data))
            data = data[size:]
            await self.peer.flush()

    async def answer(self, *messages, trailers=TRAILERS):
        """Send some messages, and the end of the call."""
        await self.headers()
        await self.answer_rest(*messages, trailers=trailers)

    async def answer_rest(self, *messages, trailers=TRAILERS):
        """Do so after the headers."""
        for message in messages:
            await self.data(frame(message))
        await self.headers(trailers, end=True)

    async def write(self, *frames):
        """Send frames as they are, with none between: each is its kind, its flags, its stream and its payload."""
        await self.peer.flush()
        packed = (
            len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
            for kind, flags, stream, payload in frames
        )
        self.peer.transport.write(b"".join(packed))

    async def plain_headers(self, *headers, begin=True, end=True):
        """Send headers of any size and any bytes, which h2 takes long to pack, or a part of them."""
        block = b"".join(b"\0" + _sized(name) + _sized(value) for name, value in headers)
        parts = [block[at : at + FRAME] for at in range(0, len(block), FRAME)]
        frames = [[CONTINUATION, 0, self.stream, part] for part in parts]
        if begin:
            frames[0][:2] = HEADERS_FRAME, END_STREAM
        if end:
            frames[-1][1] |= END_HEADERS
        await self.write(*frames)


def _sized(text):
    """Put the size before a text, as HPACK does: seven bits of the first byte, then seven a byte."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    size, head = len(text) - 127, bytearray((127,))
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes((*head, size)) + text


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, invoke, tasks):
        self.invoke = invoke
        self.calls = {}
        self.http2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        )
        self._tasks = tasks

    def connection_made(self, transport):
        self.transport = transport
        self.http2.initiate_connection()
        self.transport.write(self.http2.data_to_send())

    def data_received(self, data):
        try:
            events = self.http2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.transport.close()
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[b":path"].decode()
                self.calls[event.stream_id] = Call(self, event.stream_id, path)
            elif isinstance(event, h2.events.DataReceived):
                self.calls[event.stream_id].body += event.data
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.calls[event.stream_id].gone.set()
            elif isinstance(event, h2.events.WindowUpdated):
                for call in self.calls.values():
                    call.room.set()
            if isinstance(event, h2.events.StreamEnded):
                self._tasks.append(asyncio.create_task(self._answer(self.calls[event.stream_id])))
        self.transport.write(self.http2.data_to_send())

    async def flush(self):
        self.transport.write(self.http2.data_to_send())
        await asyncio.sleep(0)
        if self.transport.is_closing():
            raise ConnectionError

    async def _answer(self, call):
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):  # the client has had enough
            if call.path.endswith("/Check"):
                await call.answer(SERVING)
            elif call.path.endswith("/Describe"):
                await call.answer(ok(DESCRIPTION))
            else:
                await self.invoke(call)


class RawServer:
    """A server on the loopback whose ``invoke`` answers a `Call`."""

    def __init__(self, invoke):
        self._invoke = invoke
        self._tasks = []
        self._peers = []

    @property
    def target(self):
        return f"dns:///127.0.0.1:{self.port}"

    async def start(self):
        self._server = await asyncio.get_running_loop().create_server(self._peer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for peer in self._peers:
            peer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _peer(self):
        self._peers.append(Peer(self._invoke, self._tasks))
        return self._peers[-1]
