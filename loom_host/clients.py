"""Calls from programs outside of the host: each by the grants and quotas of `[clients.NAME]`.

They come over the control socket, which only the host's user can open; what a client may do is
decided here all the same, for it mostly speaks for a model.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from loom_sdk import Item, Result
from loom_sdk.errors import ActionFailed, CapabilityNotFound, PermissionDenied, QuotaExceeded

from .approvals import strictest
from .client_settings import limits_of
from .dispatch import Request
from .grants import Refusal
from .handle import Slots
from .host import Host
from .registry import Offer
from .settings import ClientSettings

APPROVAL_NEEDED = "APPROVAL_NEEDED"
"""Code of the error that asks the client's program to ask its user."""


class Clients:
    """All that call one host from outside by a name."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._slots: dict[str, Slots] = {}

    async def answer(self, request: Mapping[str, Any]) -> Any:
        """`client-tools` or `client-call` of the control socket."""
        name = str(request["client"])
        if request["op"] == "client-tools":
            return self.tools(name)
        return await self.call(name, request)

    def tools(self, name: str) -> list[dict[str, Any]]:
        """What it may call, with schemas: the granted capabilities that are tools."""
        client = self._client(name)
        offered = self._host.broker.capabilities()
        return [_row(offers[0]) for offers in offered.values() if _shown(client, offers)]

    async def call(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """One call's result as plain data. Raises any CapabilityError or PluginError."""
        client, capability = self._client(name), str(request["capability"])
        offers = self._granted(name, client, capability)
        arguments = dict(request.get("arguments") or {})
        quotas = limits_of(client.quotas)
        slots = self._slots.setdefault(name, Slots(_id(name), quotas.concurrency, quotas.rate))
        slots.spend()
        await slots.acquire()
        try:
            approved = self._approved(client, offers, request)
            result = await self._host.broker.invoke(
                Request(
                    capability,
                    arguments,
                    timeout_ms=quotas.deadline_ms,
                    caller=_id(name),
                    agent=client.agent,
                    approved=approved,
                )
            )
        finally:
            slots.release()
        return _bounded(name, result, quotas.output_bytes)

    def _client(self, name: str) -> ClientSettings:
        client = self._host.settings.clients.get(name)
        if client is None:
            raise PermissionDenied(
                f"no client is called {name!r}; to allow it tools add to loom.toml:\n"
                f'[clients.{name}]\nallow = {{ invoke = ["calculator.*"] }}',
                plugin_id=_id(name),
            )
        return client

    def _granted(self, name: str, client: ClientSettings, capability: str) -> list[Offer]:
        offers = self._host.broker.capabilities().get(capability, [])
        if not any(fnmatchcase(capability, pattern) for pattern in client.invoke):
            self._refuse(name, client, capability)
        if not _shown(client, offers):
            raise CapabilityNotFound(f"no tool is called {capability!r}")
        return offers

    def _refuse(self, name: str, client: ClientSettings, capability: str) -> None:
        wanted = ", ".join(json.dumps(text) for text in (*client.invoke, capability))
        line = f"[clients.{name}]\nallow = {{ invoke = [{wanted}] }}"
        audit = self._host.audit
        audit.refusals.append(Refusal(time.time(), _id(name), "invoke", capability, line))
        audit.denied[_id(name)] = audit.denied.get(_id(name), 0) + 1
        raise PermissionDenied(
            f"{name} may not invoke {capability!r}; to allow it add to loom.toml, in place of the "
            f"allow that is there:\n{line}",
            plugin_id=_id(name),
            permission=f"invoke:{capability}",
        )

    def _approved(
        self, client: ClientSettings, offers: list[Offer], request: Mapping[str, Any]
    ) -> bool:
        """Whether the client's own user allowed the call; else the broker asks where it must.

        Raises ActionFailed, APPROVAL_NEEDED, where that one is to be asked.
        """
        approvals, capability = self._host.broker.approvals, offers[0].spec.name
        asks = approvals.verdict(client.agent, capability, strictest(offers)) == "ask"
        if not (asks and client.elicit and request.get("can_elicit")):
            return False
        if request.get("approved") is not True:
            raise ActionFailed(f"{capability} acts on the world: allow it?", code=APPROVAL_NEEDED)
        return True


def _id(name: str) -> str:
    return f"client/{name}"


def _shown(client: ClientSettings, offers: list[Offer]) -> bool:
    spec = offers[0].spec if offers else None
    return (
        spec is not None
        and spec.tool
        and any(fnmatchcase(spec.name, pattern) for pattern in client.invoke)
    )


def _row(offer: Offer) -> dict[str, Any]:
    spec = offer.spec
    return {
        "name": spec.name,
        "description": spec.description,
        "effects": spec.effects,
        "input": dict(spec.input_schema or {"type": "object"}),
        "output": dict(spec.output_schema) if spec.output_schema else None,
        "cloud": offer.handle.placement == "cloud",
    }


def _bounded(name: str, result: Result, limit: int) -> dict[str, Any]:
    row = {"provider": result.provider, **_plain(result), "items": list(map(_plain, result.items))}
    used = len(json.dumps(row))
    if used > limit:
        raise QuotaExceeded(plugin_id=_id(name), quota="output_bytes", limit=limit, used=used)
    return row


def _plain(part: Result | Item) -> dict[str, Any]:
    payload = base64.b64encode(part.payload).decode()
    return {"output": part.output, "payload": payload, "content_type": part.content_type}
