"""Standard gRPC health and reflection, answered by a real child on its own socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from loom_host.runtimes.grpc.instance import GrpcInstance
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc

from .test_runtime_grpc import Bench

pytestmark = pytest.mark.alone

Status = health_pb2.HealthCheckResponse


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()


def socket_of(bench: Bench) -> Path:
    (found,) = (bench.folder / "run").glob("*/p-*/plugin.sock")
    return found


def stranger(bench: Bench) -> Any:
    """A client without the token."""
    return grpc.aio.insecure_channel(f"unix:{socket_of(bench)}")


async def check(channel: Any, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_says_what_the_plugin_says(bench: Bench) -> None:
    async with bench.plugin("Echo"), stranger(bench) as channel:
        assert await check(channel) == Status.SERVING
        assert await check(channel, "loom.v1.Plugin") == Status.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(channel, "unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    async with bench.plugin("Unwell"), stranger(bench) as channel:
        assert await check(channel) == Status.NOT_SERVING


async def test_a_watch_tells_the_state_at_once(bench: Bench) -> None:
    async with bench.plugin("Echo"), stranger(bench) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="unknown"))
        assert (await watch.read()).status == Status.SERVICE_UNKNOWN
        watch.cancel()


async def test_reflection_lists_the_contract(bench: Bench) -> None:
    async with bench.plugin("Echo"), stranger(bench) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        call = stub.ServerReflectionInfo()
        await call.write(ask(list_services=""))
        listed = (await call.read()).list_services_response.service
        assert {service.name for service in listed} == {
            "loom.v1.Plugin", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        await call.write(ask(file_containing_symbol="loom.v1.Plugin"))
        (file,) = (await call.read()).file_descriptor_response.file_descriptor_proto
        assert b"HostFrame" in file
        call.cancel()


async def test_nothing_but_those_two_answers_without_the_token(bench: Bench) -> None:
    async with bench.plugin("Echo") as echo, stranger(bench) as channel:
        stub: Any = pb_grpc.PluginStub(channel)
        calls = {
            "Init": stub.Init(pb.InitRequest()),
            "Health": stub.Health(pb.HealthRequest()),
            "Shutdown": stub.Shutdown(pb.ShutdownRequest()),
            "HandleEvent": stub.HandleEvent(pb.Event()),
        }
        for name, call in calls.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
        for stream in (stub.Session(), stub.Invoke(pb.ActionCall())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert isinstance(echo, GrpcInstance)
        assert await echo.health() == ""
