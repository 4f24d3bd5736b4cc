"""A module: its name, its operations, and the ways to serve it.

Owns its description and its descriptor. The transports are neighbours, and are imported when they are used.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from ._op import Op

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    import grpc.aio

    from ._inproc import Inproc

    Asgi3 = Callable[
        [
            MutableMapping[str, Any],
            Callable[[], Awaitable[MutableMapping[str, Any]]],
            Callable[[MutableMapping[str, Any]], Awaitable[None]],
        ],
        Awaitable[None],
    ]

_F = TypeVar("_F", bound="Callable[..., Any]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KINDS = ("provider", "tool", "agent", "hook", "orchestrator", "context")
_OP_MAX = 256  # characters


class Module:
    """A module of the Amplifier kernel, made of functions.

    ``name``, ``kind``, ``version``, ``capabilities`` and ``limits`` are those of its descriptor (section 1). Of the
    limits, ``message_bytes`` bounds messages here too (32 MiB by default), and ``concurrency`` the plain functions that
    run at once (64 by default). Raises ``ValueError`` for a name or a kind that there cannot be.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: str = "tool",
        version: str | None = None,
        capabilities: Iterable[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"name: expected {_NAME.pattern}, got {name!r}")
        if kind not in _KINDS:
            raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
        self.name = name
        self.kind = kind
        self.version = version
        self.capabilities: list[str] = [capabilities] if isinstance(capabilities, str) else list(capabilities)
        self.limits: dict[str, int] = dict(limits or {})
        self._ops: dict[str, Op] = {}

    @overload
    def op(self, function: _F, /) -> _F: ...
    @overload
    def op(self, /, *, name: str | None = None, stateless: bool = False) -> Callable[[_F], _F]: ...
    def op(
        self, function: _F | None = None, /, *, name: str | None = None, stateless: bool = False
    ) -> _F | Callable[[_F], _F]:
        """Make a function an operation: ``@module.op``, or ``@module.op(name=…)``. The function itself stays as it is.

        Its parameters are the arguments, its hints make the JSON Schemas, its docstring is the description. A parameter
        with the hint ``Context`` gets the invocation. A plain function runs in a thread, and several may run at once;
        an ``async`` one runs on the event loop. With ``stateless``, an ``async`` function does not wait in this process
        for its system calls: it runs again from its beginning, with the results so far, in any process. So it has to
        make the same calls again. Raises ``TypeError`` or ``ValueError`` with one line for a function that cannot be
        an operation.
        """
        if function is None:
            return lambda each: self._add(each, name, stateless=stateless)
        return self._add(function, name, stateless=stateless)

    def describe(self) -> dict[str, Any]:
        """Give what the module answers to ``describe`` (section 2)."""
        return {
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "capabilities": self.capabilities,
            "inputs": {name: op.inputs for name, op in self._ops.items()},
            "outputs": {name: op.outputs for name, op in self._ops.items()},
            "protocol": 1,
        }

    def descriptor(self, url: str | None = None) -> dict[str, Any]:
        """Give the module's descriptor (section 1): that of this program over STDIO, or that of an HTTP service."""
        transport = {"type": "http", "url": url} if url else {"type": "stdio", "command": _command()}
        told = {"name": self.name, "kind": self.kind, "version": self.version, "transport": transport}
        limits = {"limits": self.limits} if self.limits else {}
        return {**{name: value for name, value in told.items() if value}, "capabilities": self.capabilities, **limits}

    def run(self) -> None:
        """Serve the module over STDIO until the end of stdin, which it outlives by a second at most.

        What anything prints goes to stderr meanwhile. With the argument ``--descriptor`` the program prints its
        descriptor instead, with ``--descriptor=URL`` that of the HTTP service at a URL.
        """
        for word in sys.argv[1:]:
            if word.partition("=")[0] == "--descriptor":
                text = msgspec.json.format(msgspec.json.encode(self.descriptor(word.partition("=")[2])), indent=2)
                sys.stdout.write(f"{text.decode()}\n")
                return
        if sys.stdin is not None and sys.stdin.isatty():
            sys.stderr.write(f"{self.name} reads a JSON object a line from stdin; --descriptor prints its descriptor\n")
        from ._stdio import serve  # noqa: PLC0415 - an application has no use for it

        serve(self.name, self._ops, self.limits, self.describe())

    def asgi(self) -> Asgi3:
        """Give the module as an ASGI application, for servers such as uvicorn and hypercorn."""
        from ._asgi import Asgi  # noqa: PLC0415 - a child process has no use for it

        return Asgi(self.name, self._ops, self.limits, self.describe())

    async def grpc(self, **options: Any) -> grpc.aio.Server:
        """Give the module as a gRPC server, with health and reflection, which is not started yet.

        It needs a port and a start: ``server.add_insecure_port("127.0.0.1:8081")``, ``await server.start()``. The
        ``options`` are those of ``grpc.aio.server``. Raises ``ImportError`` without the extra
        ``amplifier-module[grpc]``.
        """
        try:
            from ._grpc import make_server  # noqa: PLC0415 - an extra, which takes long to import
        except ImportError as error:
            raise ImportError("a gRPC server needs grpcio: pip install 'amplifier-module[grpc]'") from error
        from ._service import Service, tell_stuck  # noqa: PLC0415 - as above

        service = Service(self.name, self._ops, self.limits, lambda: tell_stuck(self.name))
        return await make_server(service, self.describe(), options)

    def inproc(self) -> Inproc:
        """Give what answers the requests of one mount, for the transport ``inproc`` of the program that mounts it."""
        from ._inproc import Inproc  # noqa: PLC0415 - as above

        return Inproc(self.name, self._ops, self.limits, self.describe())

    def _add(self, function: _F, name: str | None, *, stateless: bool) -> _F:
        name = name or function.__name__
        if name in self._ops or not 0 < len(name) <= _OP_MAX:
            raise ValueError(f"{name!r}: expected a name of at most {_OP_MAX} characters that no other operation has")
        op = Op(function, name, stateless=stateless)
        if stateless and not op.is_async:
            raise TypeError(f"{name}: stateless is for an async function: a plain one makes no system calls")
        self._ops[name] = op
        return function


def _command() -> list[str]:
    """Give the command that starts this program again."""
    from pathlib import Path  # noqa: PLC0415 - only --descriptor needs it

    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return [sys.executable, "-m", spec.name.removesuffix(".__main__")]
    return [sys.executable, str(Path(sys.argv[0]).resolve())]
