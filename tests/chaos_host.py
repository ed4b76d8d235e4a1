"""A host with ten plugins of one making, each a child process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings

NAMES = tuple(f"p{number}" for number in range(10))
RESTARTS = 60
"""In a minute: killed every ten seconds, a plugin would be given up with the default of five."""
SOURCE = Path(__file__).parent / "children" / "chaos_plugin.py"
MANIFEST = """
[plugin]
id = "test/{name}"
version = "1.0.0"
api = "1"
type = "agent"
tier = "grpc"
entry = "chaos_plugin:Chaotic"
description = "Is killed, again and again."
[config]
peer = {{ type = "string" }}
{capabilities}
[[events.subscribes]]
topic = "work.{name}"
[[events.subscribes]]
topic = "sound.{name}"
qos = "realtime"
[events]
publishes = ["done.{name}"]
[permissions]
invoke = ["{peer}.echo"]
[quotas]
deadline_ms = 1000
concurrency = {concurrency}
"""


def make_host(folder: Path, names: Sequence[str] = NAMES) -> Host:
    """In the sandbox that strangers get; each second plugin serves four at once."""
    tables: dict[str, Any] = {}
    for index, name in enumerate(names):
        peer = names[(index + 1) % len(names)]
        _write_plugin(folder / "plugins" / name, peer, concurrency=4 if index % 2 else 1)
        allow = {
            "provide": ["*"], "subscribe": [f"work.{name}", f"sound.{name}"],
            "publish": [f"done.{name}"], "invoke": [f"{peer}.echo"],
        }  # fmt: skip
        tables[name] = {"allow": allow, "config": {"peer": peer}, "restarts": RESTARTS}
    places = {
        "data_dir": str(folder / "data"), "cache_dir": str(folder / "cache"),
        "runtime_dir": str(folder / "run"), "plugin_paths": [str(folder / "plugins")],
    }  # fmt: skip
    settings = {"host": places, "telemetry": {"log_level": "error"}, "plugins": tables}
    return Host(load_settings(None, settings))


def _write_plugin(home: Path, peer: str, concurrency: int) -> None:
    name = home.name
    effects = {"echo": "none", "nap": "once", "pour": "none", "relay": "none"}
    capabilities = "\n".join(
        f'[[capability]]\nname = "{name}.{kind}"\neffects = "{effect}"'
        for kind, effect in effects.items()
    )
    home.mkdir(parents=True)
    shutil.copy(SOURCE, home)
    manifest = MANIFEST.format(
        name=name, peer=peer, capabilities=capabilities, concurrency=concurrency
    )
    (home / "plugin.toml").write_text(manifest)
