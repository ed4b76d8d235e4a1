"""What the packages promise to export; a change here is a change of the public API."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import loom_host
import loom_sdk

PROMISED = {
    "loom_host": ["Event", "Host", "QoS", "Result", "Settings", "load_settings"],
    "loom_host.bus": [
        "ATTEMPTS_MAX", "CAPACITY", "DEAD_LETTER", "Delivery", "MemoryBus", "Subscription",
    ],
    "loom_host.runtimes.base": [
        "Declaration", "HostServices", "NO_CALL", "NotReached", "PluginInstance", "PluginSpec",
        "Runtime", "Usage", "serving",
    ],
    "loom_sdk": [
        "Agent", "AsyncContext", "Call", "Context", "Event", "Field", "Item", "Plugin", "QoS",
        "Result", "capability", "on_event", "tool",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PROMISED)
def test_all(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == PROMISED[name]
    assert all(hasattr(module, export) for export in module.__all__)


def test_the_host_shares_the_sdks_types() -> None:
    assert loom_host.Event is loom_sdk.Event
    assert loom_host.QoS is loom_sdk.QoS


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("loom_sdk", ("pluggy", "grpc", "jsonschema_rs", "httpx", "asyncio")),
        ("loom_host", ("grpc", "wasmtime", "httpx", "rocksdict", "opentelemetry")),
        ("loom_host.cli.main", ("grpc", "wasmtime", "rocksdict", "numpy")),
    ],
)
def test_heavy_imports_wait_until_they_are_needed(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
