"""Whether what `[agents.NAME]` says fits the plugin that it names."""

from __future__ import annotations

import re

from loom_sdk.errors import BusError, ConfigError
from loom_sdk.topics import check_pattern, covers

from .hints import did_you_mean
from .manifest import Manifest
from .settings import AgentSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""It is part of a topic, `agent.NAME`."""


def check_agent(name: str, own: AgentSettings, manifest: Manifest) -> None:
    """Raises ConfigError that names the line to mend."""
    where = f"[agents.{name}]"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name has letters, digits, - and _, at most 100")
    for topic in own.subscribe:
        _check_topic(where, topic, manifest)
    if own.durable and not serial(manifest):
        raise ConfigError(
            f"{where} durable: {manifest.id} takes several events at once (concurrency above 1 in "
            "its plugin.toml), so it has no order to go on in"
        )
    _check_parameters(where, own, manifest)


def serial(manifest: Manifest) -> bool:
    """Whether the plugin's agents take one event at a time: it asks for no more."""
    return all(spec.concurrency == 1 for spec in manifest.subscribes)


def _check_topic(where: str, topic: str, manifest: Manifest) -> None:
    try:
        check_pattern(topic)
    except BusError as error:
        raise ConfigError(f"{where} subscribe: {error.message}") from error
    heard = [spec.topic for spec in manifest.subscribes]
    if not any(covers(pattern, topic) for pattern in heard):
        raise ConfigError(
            f"{where} subscribe: {manifest.id} does not hear {topic!r}; it hears "
            f"{', '.join(heard) or 'nothing'}"
        )


def _check_parameters(where: str, own: AgentSettings, manifest: Manifest) -> None:
    known = ["routing", *manifest.config_schema]
    for key in own.parameters:
        if key not in manifest.config_schema:
            hint = did_you_mean(key, known, f"known: {', '.join(known)}")
            raise ConfigError(f"{where} parameters: unknown key {key!r}; {hint}")
    if own.parameters:
        from jsonschema_rs import validator_for

        schema = {"type": "object", "properties": dict(manifest.config_schema)}
        for wrong in validator_for(schema).iter_errors(dict(own.parameters)):
            place = "/".join(map(str, wrong.instance_path))
            raise ConfigError(f"{where} parameters {place}: {wrong.message}")
