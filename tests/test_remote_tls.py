"""Who may talk to a remote plugin, and to whom a host talks: real certificates, each way wrong."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loom_host.endpoint import Endpoint, endpoint_of
from loom_host.runtimes.grpc import remote
from loom_sdk.errors import PluginCrashed

from .authority import Authority
from .far import Far, far, free_port, outpost_at
from .remote_rig import NAME, PLAIN, Names, outpost, plain, refused, who, work


@pytest.fixture(scope="module")
def alone() -> Iterator[Far]:
    """One that nobody ends."""
    with far("127.0.0.1:0", *PLAIN) as process:
        yield process


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def guarded(authority: Authority) -> Iterator[Far]:
    """Certified for NAME, and lets in whom `authority` knows."""
    cert, key = authority.issue("plugin", [NAME])
    with far("127.0.0.1:0", "--cert", cert, "--key", key, "--client-ca", authority.ca) as process:
        yield process


def secured(
    process: Far, ca: Path, pair: tuple[Path, Path], host: str = NAME, **more: str
) -> Endpoint:
    tls = {"ca": str(ca), "cert": str(pair[0]), "key": str(pair[1]), **more}
    return endpoint_of(f"dns:///{host}:{process.port}", tls, False, 10.0)


async def test_host_and_plugin_prove_to_each_other_who_they_are(
    guarded: Far, authority: Authority
) -> None:
    where = secured(guarded, authority.ca, authority.issue("host"))
    async with outpost(where, Names("127.0.0.1")) as instance:
        assert (await who(instance))["pid"] == guarded.pid


async def test_a_wrong_or_expired_certificate_of_the_host_is_named_with_what_to_do(
    guarded: Far, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").issue("nobody")
    message = await refused(secured(guarded, authority.ca, stranger), Names("127.0.0.1"))
    assert f"refuses the certificate {stranger[0]}" in message
    assert "--client-ca" in message

    old = authority.issue("old", days=-1)
    message = await refused(secured(guarded, authority.ca, old), Names("127.0.0.1"))
    assert f"{old[0]} expired on" in message
    assert "renew it" in message

    mixed = (authority.issue("one")[0], authority.issue("two")[1])
    message = await refused(secured(guarded, authority.ca, mixed), Names("127.0.0.1"))
    assert f"{mixed[1]} is not the key of {mixed[0]}" in message

    gone = (tmp_path / "gone.pem", tmp_path / "gone.key")
    message = await refused(secured(guarded, authority.ca, gone), Names("127.0.0.1"))
    assert f"{gone[0]}: No such file" in message


async def test_a_plugin_that_is_not_who_it_should_be_is_refused(
    guarded: Far, authority: Authority, tmp_path: Path
) -> None:
    ours = authority.issue("host")
    other = Authority(tmp_path, "other").ca
    message = await refused(secured(guarded, other, ours), Names("127.0.0.1"))
    assert f"not signed by a CA in {other}" in message

    message = await refused(secured(guarded, authority.ca, ours, "llm.example"), Names("127.0.0.1"))
    assert "its certificate is not for llm.example" in message
    where = secured(guarded, authority.ca, ours, "llm.example", name=NAME)
    async with outpost(where, Names("127.0.0.1")) as instance:
        assert (await who(instance))["pid"] == guarded.pid


@pytest.mark.slow
async def test_an_expired_certificate_of_the_plugin_is_told(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("brief", [NAME], days=2.5 / 86400)
    arguments = ("--cert", cert, "--key", key, "--client-ca", authority.ca)
    with far("127.0.0.1:0", *arguments) as process:
        await asyncio.sleep(2.6)
        where = secured(process, authority.ca, authority.issue("host"))
        assert "has expired: renew it" in await refused(where, Names("127.0.0.1"))

        authority.issue("brief", [NAME])  # into the same files: they are taken up as they are
        async with outpost(where, Names("127.0.0.1")) as instance:
            assert (await who(instance))["pid"] == process.pid


async def test_no_certificate_is_no_way_in(guarded: Far, alone: Far, authority: Authority) -> None:
    message = await refused(plain(f"127.0.0.1:{guarded.port}"))
    assert "hung up on plaintext: it wants tls" in message
    where = secured(alone, authority.ca, authority.issue("host"))
    assert "it speaks plaintext" in await refused(where, Names("127.0.0.1"))

    async with grpc.aio.secure_channel(
        guarded.address,
        grpc.ssl_channel_credentials(authority.ca.read_bytes()),
        options=[("grpc.ssl_target_name_override", NAME)],
    ) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_name_that_leads_elsewhere_is_refused_in_plaintext(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "REACH_S", 0.2)
    with pytest.raises(PluginCrashed, match="not on this machine"):
        async with outpost(plain("localhost:50051"), Names("192.0.2.1")):
            pass


def test_plaintext_is_for_loopback_alone() -> None:
    with pytest.raises(AssertionError, match="is for 127.0.0.1, ::1 or localhost alone"):
        outpost_at("0.0.0.0:0", *PLAIN).listening()
    with pytest.raises(AssertionError, match="--cert, --key and --client-ca are needed"):
        outpost_at("127.0.0.1:0").listening()


@pytest.mark.slow
async def test_probes_need_no_certificate_and_see_the_drain(authority: Authority) -> None:
    cert, key = authority.issue("probed", [NAME])
    health = f"127.0.0.1:{free_port()}"
    tls = ("--cert", cert, "--key", key, "--client-ca", authority.ca)
    with far("127.0.0.1:0", *tls, "--health", health) as process:
        async with grpc.aio.insecure_channel(health) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", "loom.v1.Plugin"):
                request = health_pb2.HealthCheckRequest(service=service)
                assert (await stub.Check(request)).status == 1
            open_session: Any = channel.stream_stream("/loom.v1.Plugin/Session")
            session: Any = open_session()
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await session.read()
            where = secured(process, authority.ca, authority.issue("host"))
            async with outpost(where, Names("127.0.0.1")) as instance:
                call = asyncio.create_task(work(instance, 1500))
                await asyncio.sleep(0.1)
                process.send(signal.SIGTERM)
                async with asyncio.timeout(1):
                    while await _status(stub) != 2:  # noqa: ASYNC110  # as a probe asks
                        await asyncio.sleep(0.02)
                assert await call == process.pid
        await asyncio.to_thread(process.end)
        assert process.code == 0


async def _status(stub: Any) -> int:
    return int((await stub.Check(health_pb2.HealthCheckRequest())).status)
