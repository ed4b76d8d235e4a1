"""`[clients.NAME]`: programs outside of the host that may call its tools, such as MCP clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_sdk.errors import ConfigError

from .quotas import Quotas, parse_quotas
from .settings import ClientSettings
from .tables import check_keys, like, texts

_DEFAULTS = Quotas(concurrency=4)
QUOTAS = ("deadline_ms", "concurrency", "rate", "output_bytes")


def client_of(name: str, table: Mapping[str, Any], where: str) -> ClientSettings:
    """The checked form of a table. Raises ConfigError."""
    place = f"{where} [clients.{name}]"
    check_keys(table, ("allow", "agent", "elicit", "quotas"), place)
    allow, quotas = table.get("allow", {}), table.get("quotas", {})
    for key, value in (("allow", allow), ("quotas", quotas)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place} {key} must be a table, not {value!r}")
    check_keys(allow, ("invoke",), f"{place} allow")
    check_keys(quotas, QUOTAS, f"{place} quotas")
    try:
        limits_of(quotas)
    except ValueError as error:
        raise ConfigError(f"{place} quotas: {error}") from error
    return ClientSettings(
        texts(allow.get("invoke", ()), f"{place} allow invoke"),
        like("", table.get("agent", name), f"{place} agent") or name,
        like(False, table.get("elicit", False), f"{place} elicit"),
        dict(quotas),
    )


def limits_of(quotas: Mapping[str, Any]) -> Quotas:
    """Raises ValueError that names the key."""
    return parse_quotas(quotas, _DEFAULTS)
