"""Opens the Session with one replica of a remote plugin, or says what is wrong."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from loom_host.runtimes.base import Declaration, HostServices, PluginSpec
from loom_sdk.errors import ConfigError, LoomError, PluginLoadError, PluginUnhealthy

from .flights import Flights
from .host_calls import Client
from .init import declared, init_request
from .pending import LinkLost
from .resolve import Address
from .session import Session
from .tls import channel_to, explain

CONNECT_S = 5.0
"""For one attempt to connect and to shake hands."""
READY = grpc.ChannelConnectivity.READY
_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
_NO_SESSION = (
    "answers UNIMPLEMENTED to Session, which a remote plugin needs: serve it by `python -m "
    "loom_sdk.serve MODULE:CLASS --listen`, or write Session as plugin.proto has it; where it is "
    "to stay without, remove `address` and let this host start it"
)


@dataclass(slots=True)
class Line:
    """A Session that has answered Init."""

    channel: grpc.aio.Channel
    session: Session
    flights: Flights
    declaration: Declaration
    began: float = field(default_factory=time.monotonic)

    async def aclose(self) -> None:
        await self.session.aclose()
        await self.channel.close(None)

    async def going_away(self) -> None:
        """Returns when the other side wants no new calls (GOAWAY), or is gone."""
        await self.channel.wait_for_state_change(READY)


class Connector:
    """Makes lines for one instance of a remote plugin."""

    def __init__(self, spec: PluginSpec, services: HostServices) -> None:
        assert spec.remote is not None
        self.endpoint = spec.remote
        self.reached = False
        """Whether any replica ever let a connection come about."""
        self._spec, self._services = spec, services
        self._first: Declaration | None = None

    async def open(self, address: Address) -> Line:
        """Connect, open a Session and Init.

        Raises:
            PluginUnhealthy: not now; it may come.
            PluginLoadError, ProtocolMismatch: not before somebody mends what the message names.
        """
        try:
            channel = channel_to(address, self.endpoint)
        except ConfigError as error:
            text = f"{self._spec.id}: {error.message}"
            raise PluginLoadError(text, plugin_id=self._spec.id) from error
        try:
            await self._reach(channel, address)
            self.reached = True
            return await self._open_session(channel, address)
        except BaseException:
            await channel.close(None)
            raise

    async def _reach(self, channel: grpc.aio.Channel, address: Address) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                state = channel.get_state(try_to_connect=True)
                while state is not READY and state not in _FAILED:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()
        except TimeoutError:
            state = _FAILED[0]
        if state is not READY:
            raise await explain(self._spec.id, address, self.endpoint)

    async def _open_session(self, channel: grpc.aio.Channel, address: Address) -> Line:
        spec = self._spec
        flights = Flights(spec.id)
        client = Client(spec.id, self._services, flights)
        session = Session(channel, (), spec, client)
        try:
            async with asyncio.timeout(spec.start_timeout_s):
                response: Any = await session.init(init_request(spec))
            declaration = declared(spec, response)
            self._check_alike(declaration, address)
            return Line(channel, session, flights, declaration)
        except BaseException as error:
            await session.aclose()
            if isinstance(error, TimeoutError | LinkLost | grpc.aio.AioRpcError):
                raise self._refusal(error, address) from error
            raise

    def _check_alike(self, declaration: Declaration, address: Address) -> None:
        """Replicas are of one plugin. Raises PluginLoadError."""
        first = self._first = self._first or declaration
        differing = _names(first) ^ _names(declaration)
        if differing:
            raise PluginLoadError(
                f"{self._spec.id} at {address} differs from its other replicas in "
                f"{', '.join(sorted(differing))}: run the same version everywhere",
                plugin_id=self._spec.id,
            )

    def _refusal(self, error: Exception, address: Address) -> LoomError:
        who = f"{self._spec.id} at {address}"
        if isinstance(error, TimeoutError):
            text = f"{who} did not answer Init within {self._spec.start_timeout_s:g} s"
            return PluginUnhealthy(text, plugin_id=self._spec.id)
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return PluginLoadError(f"{who} {_NO_SESSION}", plugin_id=self._spec.id)
            if error.code() in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
            ):
                text = f"{who} refuses this host: {error.details()}"
                return PluginLoadError(text, plugin_id=self._spec.id)
            text = f"{who}: {error.details() or error.code().name}"
            return PluginUnhealthy(text, plugin_id=self._spec.id)
        return PluginUnhealthy(f"{who} ended the Session at Init", plugin_id=self._spec.id)


def _names(declaration: Declaration) -> set[str]:
    heard = {f"subscription {spec.topic}" for spec in declaration.subscriptions}
    return {spec.name for spec in declaration.capabilities} | heard
