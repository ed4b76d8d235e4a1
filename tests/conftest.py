"""The order of the tests: files with slow ones first, so that no worker is left with them alone."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

# Plugins whose entry is `["python", ...]` run on this interpreter, with or without an active venv.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


LONGEST = (
    "demo_cli", "scaffold", "voice_loop", "conformance_first_party", "guest_languages",
    "demo_five", "mcp_plugins", "wasm_hostile", "conformance_broken_a", "docs_pages",
    "plugin_run", "voice_faults", "packaging",
    "toolchoice", "trace_tree", "conformance_probe", "wasm_pool", "plugin_llm_openai",
    "typed_tiers", "three_tiers", "swap_voice", "storage_crash", "plugin_llm_local",
    "agents_durable", "runtime_wasm", "foreign_component", "plugin_notes", "voice_pauses",
    "swap", "loom_mcp",
)  # fmt: skip
"""Files that took longest when they were last measured; a wrong order costs time alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    place = {f"test_{stem}": number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), -slow[item.path]))
