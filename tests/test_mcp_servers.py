"""The key `mcp` of a plugin's table: what it may say, and what the host makes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from loom_host import load_settings
from loom_host.assembly import make_handle
from loom_host.grants import grant, line_to_allow
from loom_host.lineup import only
from loom_host.mcp_servers import code_of, mcp_manifest
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.grpc.init import declared
from loom_host.runtimes.grpc.sandbox import profile_of
from loom_host.schema_check import compiled
from loom_host.settings import Settings
from loom_sdk import wire
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.errors import ConfigError, PluginLoadError
from loom_sdk.plugin import CapabilitySpec

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")


def settings_of(**table: Any) -> Settings:
    return load_settings(None, {"plugins": {"files": table}})


def spec_of(**table: Any) -> PluginSpec:
    settings = settings_of(**table)
    manifest = mcp_manifest("files", settings.plugins["files"])
    return make_handle("files", manifest, settings).spec


@pytest.mark.parametrize("value", ["mcp-server-git", [], [1], [""], "", 7, "ftp://x/mcp"])
def test_what_is_neither_a_command_nor_an_address_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be a command as a list"):
        settings_of(mcp=value)


def test_a_server_runs_strictly_confined_and_is_nobody_of_the_house() -> None:
    spec = spec_of(mcp=[sys.executable, "-V"])
    assert profile_of(spec) == "strict"
    assert not spec.first_party
    assert (spec.id, spec.dynamic) == ("mcp/files", True)
    assert spec.config["command"] == [sys.executable, "-V"]


def test_safe_mode_with_first_party_plugins_leaves_a_strangers_server_off() -> None:
    settings = settings_of(mcp=[sys.executable])
    assert not only(settings, ["first-party"]).plugins["files"].enabled
    assert only(settings, ["files"]).plugins["files"].enabled


def test_a_server_has_what_its_table_allows_and_nothing_else(tmp_path: Path) -> None:
    allow = {"provide": ["files.read"], "filesystem": ["notes"]}
    spec = spec_of(mcp=[sys.executable], allow=allow, folders={"notes": str(tmp_path)})
    assert spec.grants == ("provide:files.read", "filesystem:notes")
    assert [(folder.name, folder.writable) for folder in spec.folders] == [("notes", False)]
    assert spec_of(mcp=[sys.executable]).grants == ()


def test_a_server_at_an_address_asks_for_that_address_and_is_told_the_line() -> None:
    settings = settings_of(mcp="https://tools.example:8443/mcp")
    own = settings.plugins["files"]
    manifest = mcp_manifest("files", own)
    assert manifest.permissions.network == ("https://tools.example:8443",)
    grants = grant("files", manifest, own.allow)
    line = line_to_allow(grants, "network", "https://tools.example:8443")
    assert line == '[plugins.files]\nallow = { network = ["https://tools.example:8443"] }'


def test_a_server_that_reaches_the_network_counts_as_cloud() -> None:
    table: dict[str, Any] = {"mcp": "https://tools.example/mcp"}
    allowed = table | {"allow": {"network": ["https://tools.example"]}}
    for keys, placement in ((allowed, "cloud"), ({"mcp": [sys.executable]}, "local")):
        settings = settings_of(**keys)
        manifest = mcp_manifest("files", settings.plugins["files"])
        assert make_handle("files", manifest, settings).placement == placement


def test_the_sandbox_shows_the_servers_code_and_not_the_folder_around_a_script(
    tmp_path: Path,
) -> None:
    script = tmp_path / "server.py"
    script.write_text("")
    assert script in code_of((sys.executable, str(script), str(tmp_path)))
    assert tmp_path not in code_of((sys.executable, str(script), "/"))
    assert Path("/") not in code_of((sys.executable, str(script), "/"))


def test_a_program_of_npm_shows_its_node_modules(tmp_path: Path) -> None:
    program = tmp_path / "node_modules" / ".bin" / "server"
    program.parent.mkdir(parents=True)
    program.write_text("#!/usr/bin/env sh\n")
    program.chmod(0o755)
    assert tmp_path / "node_modules" in code_of((str(program),))


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="'no-such-server' is no program on PATH"):
        code_of(("no-such-server",))


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ([CapabilitySpec("Bad Name")], "must look like 'weather.get'"),
        ([CapabilitySpec("a." + "b" * 300)], "must look like 'weather.get'"),
        ([CapabilitySpec(f"a.b{n}") for n in range(300)], "at most 256"),
        ([CapabilitySpec("a.b", input_schema={"enum": ["x" * 70_000]})], "70\\d* characters"),
    ],
)
def test_what_a_bridge_that_was_taken_over_tells_is_taken_within_bounds(
    told: list[CapabilitySpec], match: str
) -> None:
    meta = pb.PluginMeta(id="mcp/files", capabilities=map(wire.capability_to_proto, told))
    with pytest.raises(PluginLoadError, match=match):
        declared(spec_of(mcp=[sys.executable]), pb.InitResponse(api_version="1", meta=meta))


@pytest.mark.parametrize("place", ["file:///etc/hostname", "http://127.0.0.1:9/x", "x.json"])
def test_a_strangers_schema_makes_the_host_fetch_nothing(place: str) -> None:
    with pytest.raises(ValueError, match="must stay within the schema|not present in a registry"):
        compiled({"$ref": place})
    assert compiled({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}).is_valid(3)
