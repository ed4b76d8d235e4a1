"""Init: what the host tells a plugin at first, and what the plugin's answer means."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from loom_host.manifest_values import CAPABILITY
from loom_host.runtimes.base import Declaration, PluginSpec
from loom_sdk import wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import LoomError, PluginError, PluginLoadError, ProtocolMismatch
from loom_sdk.plugin import API_VERSION, CapabilitySpec
from loom_sdk.status import error_from_proto

API_VERSIONS = (API_VERSION,)
MOST_TOLD, LONGEST_NAME, SCHEMA_CHARS = 256, 200, 65_536
"""Of a plugin whose manifest lists nothing: a stranger's word is taken within bounds."""


def init_request(spec: PluginSpec, host_socket: str = "") -> Any:
    """The `InitRequest`. A remote plugin is told no folders: they would be this machine's."""
    quotas = {name: int(value) for name, value in asdict(spec.quotas).items()}
    here = spec.remote is None
    return pb.InitRequest(
        api_versions=API_VERSIONS,
        plugin_id=spec.id,
        config=json.dumps(dict(spec.config)),
        grants=spec.grants,
        host_socket=host_socket,
        data_dir=str(spec.data_dir) if here else "",
        cache_dir=str(spec.cache_dir) if here else "",
        quotas=quotas,
    )


def declared(spec: PluginSpec, response: Any) -> Declaration:
    """What an `InitResponse` says that the plugin offers and hears.

    Raises:
        PluginLoadError: it refused to start, or calls itself something else.
        ProtocolMismatch: it speaks none of the host's api versions.
    """
    if response.HasField("error"):
        error = error_from_proto(response.error)
        if isinstance(error, ProtocolMismatch):
            raise error
        text = f"{spec.id} did not start: {error.message}"
        raise PluginLoadError(text, plugin_id=spec.id) from error
    if response.api_version not in API_VERSIONS:
        raise _mismatch(spec.id, response.api_version)
    try:
        return _declaration(spec, response.meta)
    except LoomError as error:
        raise PluginLoadError(f"{spec.id}: at Init: {error}", plugin_id=spec.id) from error


def _declaration(spec: PluginSpec, meta: Any) -> Declaration:
    if meta.id and meta.id != spec.id:
        raise PluginError(f"it calls itself {meta.id!r}, its manifest says {spec.id!r}")
    capabilities = tuple(map(wire.capability_from_proto, meta.capabilities))
    if spec.dynamic:
        _check_told(capabilities)
    return Declaration(
        capabilities,
        tuple(map(wire.subscription_from_proto, meta.subscriptions)),
        inferred=spec.dynamic,
    )


def _check_told(capabilities: tuple[CapabilitySpec, ...]) -> None:
    """Of what no manifest lists. Raises PluginError."""
    if len(capabilities) > MOST_TOLD:
        raise PluginError(f"it offers {len(capabilities)} capabilities, at most {MOST_TOLD} may be")
    for spec in capabilities:
        if len(spec.name) > LONGEST_NAME or not CAPABILITY.fullmatch(spec.name):
            shown = ascii(spec.name[:LONGEST_NAME])
            raise PluginError(f"capability {shown} must look like 'weather.get'")
        size = len(json.dumps(spec.input_schema)) + len(spec.description)
        if size > SCHEMA_CHARS:
            raise PluginError(
                f"the schema of {spec.name} has {size} characters, {SCHEMA_CHARS} may"
            )


def _mismatch(plugin_id: str, version: str) -> ProtocolMismatch:
    newest = max(map(int, API_VERSIONS))
    newer = version.isdecimal() and int(version) > newest
    what = "loom-host" if newer else "the plugin, with its SDK"
    return ProtocolMismatch(
        f"{plugin_id} chose api {version!r}, the host speaks {', '.join(API_VERSIONS)}: "
        f"upgrade {what}",
        plugin_id=plugin_id,
    )
