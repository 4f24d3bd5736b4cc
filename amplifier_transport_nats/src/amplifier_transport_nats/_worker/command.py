"""The command line of the worker: its options, its logging, its signals and its exit status.

Owns nothing of the protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from amplifier_core import BadRequest, KernelError, ModuleDescriptor, load_descriptor
from amplifier_core.hookspecs import Tls
from amplifier_core.hosting import HostedModule
from amplifier_transport_nats._fields import is_subject
from amplifier_transport_nats._place import Place, endpoint_of

from .service import Service
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_log = logging.getLogger("amplifier_transport_nats")
_PROGRAM = "python -m amplifier_transport_nats"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT. Give the exit status: 1, with one line, if it could not start."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    try:
        descriptor = _descriptor(options)
        asyncio.run(_run(descriptor, options))
    except (KernelError, OSError) as error:
        sys.stderr.write(f"{_PROGRAM}: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_PROGRAM, description="Serve a module of this host to kernels, over NATS.")
    add = parser.add_argument
    add("descriptor", type=Path, help="the file of the module's descriptor")
    add("--subject", required=True, type=_subject, help="the subject of the pool, which kernels name")
    add("--servers", required=True, nargs="+", type=_server, metavar="HOST:PORT", help="servers of NATS")
    add("--concurrency", type=_count, help="requests that the module gets at once (default: its limits.concurrency)")
    add("--trusted", action="store_true", help="run the module as an ordinary process, and not confined")
    add("--isolation", help="the isolation to confine it with, if several are installed")
    add("--credentials", type=Path, help="a file: NATS credentials, an nkey, or JSON with user and password, or token")
    add("--no-tls", action="store_true", help="do not encrypt")
    add("--tls-ca", type=Path, help="a PEM file with the only authorities to trust")
    add("--tls-cert", type=Path, help="a PEM file with the certificate of this worker")
    add("--tls-key", type=Path, help="a PEM file with its key")
    add("--tls-server-name", help="the name that the server's certificate has to have")
    add("--drain", type=float, default=25.0, metavar="SECONDS", help="that requests have to end at SIGTERM (25)")
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _subject(text: str) -> str:
    if not is_subject(text):
        raise argparse.ArgumentTypeError("expected words of letters, digits, _ and -, with dots between")
    return text


def _server(text: str) -> str:
    try:
        endpoint_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; a password belongs in --credentials") from None
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 4096:  # noqa: PLR2004 - no more requests are taken
        raise argparse.ArgumentTypeError("expected a number from 1 to 4096")
    return int(text)


def _descriptor(options: argparse.Namespace) -> ModuleDescriptor:
    """Load the descriptor. Raises ``BadRequest`` for one of a module that is served elsewhere."""
    descriptor = load_descriptor(options.descriptor)
    if descriptor.transport["type"] == "nats":
        raise BadRequest(f"{descriptor.source}: transport.type: expected one that runs the module here, got 'nats'")
    if options.concurrency is not None:
        limits = attrs.evolve(descriptor.limits, concurrency=options.concurrency)
        descriptor = attrs.evolve(descriptor, limits=limits)
    return descriptor


def _place(options: argparse.Namespace) -> Place:
    if (options.tls_cert is None) is not (options.tls_key is None):
        raise BadRequest("expected --tls-cert and --tls-key, or neither")
    tls = Tls(ca=options.tls_ca, cert=options.tls_cert, key=options.tls_key, server_name=options.tls_server_name)
    return Place(servers=tuple(options.servers), tls=None if options.no_tls else tls, credentials=options.credentials)


async def _run(descriptor: ModuleDescriptor, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    _stop_at_signals(stop)
    place = _place(options)
    module = HostedModule(descriptor, trusted=options.trusted, isolation=options.isolation, notify=_report)
    async with module:
        worker = Worker(
            module, _service(descriptor, module, options.subject), place, options.subject, descriptor.message_bytes
        )
        await worker.start()
        await worker.serve(stop)
        _log.info("draining")
        await worker.drain(options.drain)
    _log.info("stopped")


def _service(descriptor: ModuleDescriptor, module: HostedModule, subject: str) -> Service:
    version = json.loads(module.description).get("version") or "0.0.0"
    metadata = {"kind": descriptor.kind, "host": platform.node(), "pid": str(os.getpid())}
    return Service(descriptor.name, version, subject, metadata | {"isolation": module.isolation or "none"})


def _stop_at_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _report(event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
    """Log what the transport reports of the module."""
    level = logging.WARNING if error is not None or event == "module:noise" else logging.INFO
    _log.log(level, "%s %s%s", event, json.dumps(dict(data), default=str)[:1000], f" {error}" if error else "")
