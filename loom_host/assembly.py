"""Settings and manifests -> handles: which plugins run, where, with what grants and limits."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom_sdk.errors import ConfigError, ManifestError, PluginLoadError
from loom_sdk.models import models_dir

from . import discovery
from .agent_check import check_agent
from .folders import Folder
from .folders import granted as granted_folders
from .grants import Grants, grant
from .handle import PluginHandle, Slots
from .hints import did_you_mean
from .manifest import Manifest
from .manifest_values import HOST
from .mcp_servers import code_of, mcp_manifest
from .quotas import tightest
from .runtimes.base import PluginSpec
from .schema_check import compiled

if TYPE_CHECKING:
    from .endpoint import Endpoint
from .settings import PluginSettings, Settings

START_TIMEOUT_S = {"native": 60.0, "grpc": 60.0, "wasm": 180.0}
"""A model is loaded at start; a component may first be built and compiled."""


def roots_of(settings: Settings) -> list[Path]:
    """Every place where plugins are looked for."""
    return [discovery.first_party_root(), *_own_roots(settings), *discovery.installed_roots()]


def _own_roots(settings: Settings) -> list[Path]:
    return [Path(path) for path in settings.host.plugin_paths]


def manifests_of(settings: Settings) -> dict[str, Manifest]:
    """Manifests of the plugins that the settings name."""
    bare = {
        name: discovery.bare_component(name, Path(own.path))
        for name, own in settings.plugins.items()
        if own.path
    }
    bare |= {n: mcp_manifest(n, own) for n, own in settings.plugins.items() if own.mcp}
    named = settings.plugins.keys() - bare
    return discovery.find_named(named, _own_roots(settings)) | bare


def chosen(settings: Settings, manifests: Mapping[str, Manifest]) -> list[str]:
    """Names of the plugins to run, in the order of the file.

    A plugin runs when it has a table and is not switched off, when its role (if any) is bound
    to it, and when at least one thing it does is wanted: a plugin in whose stead others are
    listed in [providers] for all that it does stays off. So one line swaps an engine.
    """
    names = []
    for name, own in settings.plugins.items():
        manifest = known(name, manifests)
        if not own.enabled or (own.role and name not in settings.roles.get(own.role, ())):
            continue
        if manifest.subscribes or not _passed_over(name, settings.providers, manifests):
            names.append(name)
    _check_names(settings, manifests)
    return names


def _passed_over(
    name: str, providers: Mapping[str, tuple[str, ...]], manifests: Mapping[str, Manifest]
) -> bool:
    """Whether others are listed in its stead for all that it does.

    What has no list is no reason to run it where one of those offers that, too: who swaps
    `llm.chat` means `llm.count_tokens` as well.
    """
    offered = {c.name for c in manifests[name].capabilities}
    listed = {c: providers[c] for c in offered if c in providers}
    if not listed or any(name in names for names in listed.values()):
        return False
    instead = {other for names in listed.values() for other in names if other in manifests}
    theirs = {c.name for other in instead for c in manifests[other].capabilities}
    return offered <= listed.keys() | theirs


def known(name: str, manifests: Mapping[str, Manifest]) -> Manifest:
    """Raises ConfigError with a suggestion."""
    if name in manifests:
        return manifests[name]
    hint = did_you_mean(name, manifests, "add its folder to host.plugin_paths")
    raise ConfigError(f"[plugins.{name}]: no plugin is called {name!r}; {hint}")


def _check_names(settings: Settings, manifests: Mapping[str, Manifest]) -> None:
    for agent, bound in settings.agents.items():
        if bound.plugin and bound.plugin not in settings.plugins:
            hint = hint_at(bound.plugin, settings.plugins)
            raise ConfigError(f"[agents.{agent}] plugin = {bound.plugin!r} has no table; {hint}")
        if bound.plugin:
            check_agent(agent, bound, known(bound.plugin, manifests))
    named = [(f"[providers] {k}", v) for k, v in settings.providers.items()]
    named += [(f"[roles] {k}", v) for k, v in settings.roles.items()]
    for where, names in named:
        for name in names:
            if name not in settings.plugins:
                hint = hint_at(name, settings.plugins)
                raise ConfigError(f"{where}: {name!r} has no table; {hint}")
            known(name, manifests)
    _check_capabilities(settings, manifests)


def hint_at(name: str, tables: Collection[str]) -> str:
    """What to do about the name of a plugin that has no table."""
    return did_you_mean(name, tables, f"add [plugins.{name}]")


def _check_capabilities(settings: Settings, manifests: Mapping[str, Manifest]) -> None:
    """A misspelt key of [providers] would change nothing, silently.

    Not told: the host's own, and what a component in the list may yet offer by its types.
    """
    tables = [manifests[name] for name in settings.plugins]
    offers = {spec.name for manifest in tables for spec in manifest.capabilities}
    for capability, names in settings.providers.items():
        unsure = any(n in manifests and manifests[n].offers_by_types for n in names)
        if capability in offers or capability.startswith("loom.") or unsure:
            continue
        hint = did_you_mean(capability, offers, "`loom plugin list` has the names")
        raise ConfigError(f"[providers] {capability!r}: no plugin with a table offers it; {hint}")


def make_handle(name: str, manifest: Manifest, settings: Settings) -> PluginHandle:
    """Raises ConfigError or PluginLoadError that name the line to mend."""
    if name == HOST:
        raise ConfigError(f"[plugins.{HOST}]: the name is the host's own: rename the plugin")
    own = settings.plugins[name]
    tier = _tier(name, manifest, own)
    first_party = discovery.is_first_party(manifest)
    if own.enabled and tier == "native" and not first_party:
        _check_trust(name, manifest, own)
    if own.enabled and settings.lock_file.is_file():
        from .packages.installed import check_installed  # which few hosts need

        check_installed(name, manifest.folder, settings)
    grants = grant(name, manifest, own.allow)
    try:
        quotas = tightest(manifest.quotas, own.quotas)
    except ValueError as error:
        raise ConfigError(f"[plugins.{name}.quotas]: {error}") from error
    spec = PluginSpec(
        name=name,
        id=manifest.id,
        version=manifest.version,
        tier=tier,
        entry=manifest.entry,
        folder=manifest.folder,
        config=plugin_config(name, manifest, own),
        grants=grants.texts(),
        quotas=quotas,
        data_dir=settings.host.data_dir / "plugins" / manifest.id,
        cache_dir=settings.host.cache_dir / "plugins" / manifest.id,
        env=_environment(grants.allowed.get("env", ())),
        folders=_folders(name, grants, own),
        first_party=first_party and not own.address and not own.mcp,
        instances=manifest.instances,
        isolation=own.isolation,
        marshal=own.marshal or settings.host.marshal,
        idle_s=own.idle_s,
        sandbox=own.sandbox or manifest.sandbox,
        start_timeout_s=START_TIMEOUT_S[tier],
        remote=_remote(name, manifest, own),
        dynamic=manifest.dynamic,
        code=code_of(own.mcp),
    )
    slots = Slots(manifest.id, quotas.concurrency, quotas.rate)
    return PluginHandle(manifest, own, grants, spec, slots)


def _tier(name: str, manifest: Manifest, own: PluginSettings) -> str:
    tier = own.tier or ("grpc" if own.address else manifest.tier)
    if own.address and tier != "grpc":
        raise ConfigError(f"[plugins.{name}] tier = {tier!r}: a plugin with an `address` is grpc")
    if tier not in manifest.tiers:
        raise ConfigError(
            f"[plugins.{name}] tier = {tier!r}: {manifest.id} claims only "
            f"{', '.join(manifest.tiers)}"
        )
    return tier


def _remote(name: str, manifest: Manifest, own: PluginSettings) -> Endpoint | None:
    if not own.address:
        return None
    from .endpoint import endpoint_of

    remote = endpoint_of(own.address, own.tls, own.insecure, own.keepalive_s)
    if manifest.instances == "single" and len(remote.targets) > 1:
        raise ConfigError(
            f'[plugins.{name}] address: {manifest.id} keeps state (instances = "single"), so it '
            f"has one address, not {len(remote.targets)}"
        )
    return remote


def _folders(name: str, grants: Grants, own: PluginSettings) -> tuple[Folder, ...]:
    try:
        return granted_folders(grants.allowed.get("filesystem", ()), own.folders)
    except ValueError as error:
        raise ConfigError(f"[plugins.{name}.folders]: {error}") from error


def _environment(names: tuple[str, ...]) -> dict[str, str]:
    granted = {name: os.environ[name] for name in names if name in os.environ}
    return granted | {"LOOM_MODELS": str(models_dir())}


def _check_trust(name: str, manifest: Manifest, own: PluginSettings) -> None:
    actual = discovery.code_hash(manifest.folder)
    if own.trusted and own.code == actual:
        return
    why = "its code changed" if own.trusted and own.code else "native code is not isolated"
    raise PluginLoadError(
        f"{name} may not run in the host: {why}. If you trust it, write under [plugins.{name}]: "
        f'trusted = true and code = "{actual}"; or run it with tier = "grpc"',
        plugin_id=manifest.id,
    )


def plugin_config(name: str, manifest: Manifest, own: PluginSettings) -> dict[str, Any]:
    """The plugin's settings with defaults. Raises ConfigError with a suggestion."""
    properties = dict(manifest.config_schema)
    for key in own.config:
        if key not in properties:
            known = ", ".join(properties) or "none"
            hint = did_you_mean(key, properties, f"known: {known}")
            raise ConfigError(f"[plugins.{name}.config]: unknown key {key!r}; {hint}")
    values = _defaults(manifest) | dict(own.config)
    if own.config:  # defaults alone are looked at by `check_schemas`, not at every start
        _check_config(f"[plugins.{name}.config]", manifest, values)
    return values


def check_schemas(manifest: Manifest) -> None:
    """Raises ManifestError where a schema in a `plugin.toml` is wrong, or a default breaks its own.

    Not part of a start, which compiles a schema when it first needs it.
    """
    try:
        _check_config("[config] default of", manifest, _defaults(manifest))
    except ConfigError as error:
        raise ManifestError(f"{manifest.folder}/plugin.toml {error.message}") from error
    for capability in manifest.capabilities:
        for schema in (capability.input_schema, capability.output_schema):
            _validator(manifest, capability.name, dict(schema or {}))


def _defaults(manifest: Manifest) -> dict[str, Any]:
    return {k: s["default"] for k, s in manifest.config_schema.items() if "default" in s}


def _check_config(where: str, manifest: Manifest, values: Mapping[str, Any]) -> None:
    schema = {"type": "object", "properties": dict(manifest.config_schema)}
    for wrong in _validator(manifest, "[config]", schema).iter_errors(values):
        place = "/".join(map(str, wrong.instance_path))
        raise ConfigError(f"{where} {place}: {wrong.message}")


def _validator(manifest: Manifest, where: str, schema: dict[str, Any]) -> Any:
    try:
        return compiled(schema)
    except ValueError as error:
        raise ManifestError(f"{manifest.folder}/plugin.toml {where}: {error}") from error
