"""NATS' own service protocol: what answers ``$SRV.PING``, ``INFO`` and ``STATS``.

Owns the statistics. The shapes are those of nats-py.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nats.micro.service import EndpointInfo, EndpointStats, ServiceInfo, ServicePing, ServiceStats

from amplifier_transport_nats._wire import METHODS, QUEUE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nats.aio.msg import Msg

    from amplifier_core import KernelError
    from amplifier_transport_nats._client import Client

_VERBS = ("PING", "INFO", "STATS")


class Service:
    """One worker as a service of NATS. Its name is that of the module, with ``_`` for dots."""

    def __init__(self, name: str, version: str, subject: str, metadata: Mapping[str, str]) -> None:
        self._name, self._version, self._subject = name.replace(".", "_"), version, subject
        self._metadata = dict(metadata)
        self._started = datetime.now(UTC).replace(tzinfo=None)
        self._stats = {method: EndpointStats(method, f"{subject}.{method}", QUEUE, 0, 0, 0, 0) for method in METHODS}

    def count(self, method: str, seconds: float, failure: KernelError | None) -> None:
        """Count a request that has ended."""
        stats = self._stats[method]
        stats.num_requests += 1
        stats.processing_time += int(seconds * 1e9)
        stats.average_processing_time = stats.processing_time // stats.num_requests
        if failure is not None:
            stats.num_errors += 1
            stats.last_error = f"{failure.code}: {failure.message}"[:1000]

    async def listen(self, client: Client, worker: str) -> None:
        """Answer on a connection. ``worker`` is the id of this worker there."""
        for verb in _VERBS:
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{self._name}", f"$SRV.{verb}.{self._name}.{worker}"):
                await client.subscribe(subject, cb=self._answering(client, verb, worker))

    def _answering(self, client: Client, verb: str, worker: str) -> Callable[[Msg], Awaitable[None]]:
        async def answer(msg: Msg) -> None:
            if msg.reply:
                client.do(client.publish(msg.reply, json.dumps(self._told(verb, worker)).encode()))

        return answer

    def _told(self, verb: str, worker: str) -> Any:
        who: dict[str, Any] = {"id": worker, "name": self._name, "version": self._version, "metadata": self._metadata}
        if verb == "PING":
            return ServicePing(**who).to_dict()
        if verb == "STATS":
            return ServiceStats(**who, started=self._started, endpoints=list(self._stats.values())).to_dict()
        endpoints = [EndpointInfo(method, f"{self._subject}.{method}", QUEUE) for method in METHODS]
        return ServiceInfo(**who, endpoints=endpoints, description="a module of the Amplifier kernel").to_dict()
