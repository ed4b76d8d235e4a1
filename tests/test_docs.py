"""The documents tell of everything there is; test_docs_blocks.py runs what stands in them."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from loom_host.cli.main import build_parser
from loom_host.grants import KINDS
from loom_host.quotas import Quotas
from loom_host.settings import (
    AgentSettings,
    ClientSettings,
    EventLogSettings,
    HostSettings,
    PluginSettings,
    Policy,
    RoutingSettings,
    SecretSettings,
    Settings,
    StorageSettings,
    TelemetrySettings,
    ToolPolicy,
)

from .support import ROOT

CONFIGURATION = (ROOT / "docs" / "CONFIGURATION.md").read_text()


@pytest.mark.parametrize(
    "kind",
    [
        HostSettings,
        TelemetrySettings,
        PluginSettings,
        SecretSettings,
        Quotas,
        StorageSettings,
        EventLogSettings,
        RoutingSettings,
    ],
)
def test_every_configuration_key_is_documented(kind: type) -> None:
    for item in fields(kind):
        assert f"`{item.name}`" in CONFIGURATION, item.name


def test_every_table_of_loom_toml_is_documented() -> None:
    for item in fields(Settings):
        if item.name != "path":
            assert re.search(rf"^## \[{item.name}", CONFIGURATION, re.MULTILINE), item.name
    for item in fields(Policy):
        assert f"parameters.routing.{item.name}" in CONFIGURATION
    for item in fields(ToolPolicy):
        assert f"parameters.tools.{item.name}" in CONFIGURATION
    for item in fields(ClientSettings):
        assert f"`{item.name}`" in CONFIGURATION, item.name
    for item in fields(AgentSettings):
        if item.name not in ("policy", "tools"):
            assert f"`{item.name}`" in CONFIGURATION, item.name


def test_every_kind_of_grant_is_documented() -> None:
    for kind in KINDS:
        assert f"`{kind}`" in CONFIGURATION, kind


def test_every_command_is_documented() -> None:
    texts = "\n".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    actions = build_parser()._subparsers
    assert actions is not None
    commands = next(iter(actions._group_actions)).choices
    assert commands is not None
    for command in commands:
        assert f"loom {command}" in texts, command
