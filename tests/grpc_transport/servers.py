"""gRPC servers for the tests: each call is answered by a function of the test's own, with bytes of its own."""

import json

import grpc
import grpc.aio

from amplifier_core import KernelError, ModuleDescriptor
from amplifier_transport_grpc._message import decode, encode

DESCRIPTION = {"name": "m", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
SERVING = b"\x08\x01"
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def message(**parts):
    """Encode a message of the service."""
    return encode(json.dumps(parts).encode())


def ok(result):
    return message(ok=True, result=result)


def params_of(request):
    return json.loads(decode(request))


async def outcomes(connection, params, count):
    """Give the codes of calls, one after the other."""
    codes = []
    for _ in range(count):
        try:
            await connection.request("invoke", params)
            codes.append("ok")
        except KernelError as error:
            codes.append(error.code)
    return codes


async def describe(_request, _context):
    return ok(DESCRIPTION)


async def echo(request, _context):
    return ok(params_of(request)["args"])


async def echo_stream(request, _context):
    args = params_of(request)["args"]
    for chunk in args.get("chunks", ()):
        yield message(chunk=chunk)
    yield ok(args)


async def health(_request, _context):
    return SERVING


SERVICES = {"grpc.health.v1.Health": ("Check",), "amplifier.v1.Module": ("Describe", "Invoke", "InvokeStream")}


class Server:
    """A server on the loopback. ``requests`` has each invocation: its parameters, and its context."""

    def __init__(self, *, invoke=echo, stream=echo_stream, describe=describe, health=health, services=tuple(SERVICES)):
        self.requests = []
        self._answers = {"Describe": describe, "Invoke": invoke, "Check": health, "InvokeStream": stream}
        self._services = services
        self.server: grpc.aio.Server
        self.port = 0

    @property
    def target(self):
        return f"dns:///127.0.0.1:{self.port}"

    async def start(self, *, tls=None, port=0, address=None, options=()):
        self.server = grpc.aio.server(options=[*SIZES, ("grpc.so_reuseport", 0), *options])
        handlers = {service: {name: self._handler(name) for name in SERVICES[service]} for service in self._services}
        self.server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(*each) for each in handlers.items())
        )
        address = address or f"127.0.0.1:{port}"
        add = self.server.add_insecure_port if tls is None else self.server.add_secure_port
        self.port = add(address, *([] if tls is None else [tls]))
        await self.server.start()

    async def stop(self):
        await self.server.stop(None)

    def _handler(self, name):
        return self._stream(name) if name == "InvokeStream" else self._unary(name)

    def _unary(self, name):
        async def answer(request, context):
            if name == "Invoke":
                self.requests.append((params_of(request), context))
            return await self._answers[name](request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _stream(self, name):
        async def answer(request, context):
            self.requests.append((params_of(request), context))
            async for data in self._answers[name](request, context):
                yield data

        return grpc.unary_stream_rpc_method_handler(answer)


def descriptor(target, **transport):
    """Describe the module of a server."""
    limits = transport.pop("limits", {})
    capabilities = transport.pop("capabilities", [])
    fields = {"name": "m", "kind": "tool", "capabilities": capabilities, "limits": limits}
    return ModuleDescriptor.from_mapping(
        {**fields, "transport": {"type": "grpc", "target": target, "tls": False, **transport}}
    )
