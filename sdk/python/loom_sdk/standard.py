"""The standard services beside `service Plugin`: health for probes, reflection for grpcurl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as pb_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from .methods import Methods

WATCH_S = 1.0
"""How often `Watch` looks."""


class Health(pb_grpc.HealthServicer):  # type: ignore[misc]  # generated, untyped
    """Answers alike for the whole server ("") and for each of `services`.

    Args:
        serving: whether it serves now.
    """

    def __init__(self, serving: Callable[[], bool], services: Sequence[str]) -> None:
        self._serving, self._services = serving, ("", *services)

    def _status(self) -> Any:
        kind = pb.HealthCheckResponse
        return kind(status=kind.SERVING if self._serving() else kind.NOT_SERVING)

    async def Check(self, request: Any, context: Any) -> Any:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return self._status()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        kind = pb.HealthCheckResponse
        told = None
        while True:
            known = request.service in self._services
            status = self._status() if known else kind(status=kind.SERVICE_UNKNOWN)
            if status != told:
                told = status
                yield status
            await asyncio.sleep(WATCH_S)


def add(table: Methods, serving: Callable[[], bool], services: Sequence[str]) -> None:
    """Add both services, for a `grpc.aio` server."""
    add_health(table, serving, services)
    names = (*services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), table)


def add_health(table: Methods, serving: Callable[[], bool], services: Sequence[str]) -> None:
    pb_grpc.add_HealthServicer_to_server(Health(serving, services), table)
