"""What `loom plugin build` does, whatever the language: the folder says which builder it wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loom_sdk.errors import ManifestError

from . import compiled_plugin, node_plugin
from .manifest import Manifest, load_manifest


@dataclass(frozen=True, slots=True)
class Built:
    """What a plugin runs from."""

    path: Path
    seconds: float
    """0 where it was up to date."""


def unbuilt(manifest: Manifest) -> tuple[str, str] | None:
    """What keeps a child's program from running, and the line that mends it; None for nothing."""
    return node_plugin.missing(manifest) or compiled_plugin.missing(manifest)


def build_plugin(folder: Path, tell: Callable[[str], object] = lambda _: None) -> Built:
    """Build the plugin of this folder unless its build is up to date.

    Args:
        folder: holds `plugin.toml`.
        tell: gets the plugin's id where a build begins.

    Raises:
        ManifestError: there is nothing to build.
        PluginLoadError: the toolchain is missing, with the line that gets it, or it refused.
    """
    manifest = load_manifest(folder / "plugin.toml")
    path, current, make = _builder(manifest)
    if current:
        return Built(path, 0)
    tell(manifest.id)
    began = time.monotonic()
    make()
    return Built(path, time.monotonic() - began)


def _why_nothing(manifest: Manifest) -> str:
    """What its entry would have to be."""
    if language := compiled_plugin.language_of(manifest.folder):
        return f'for the {language.mark} beside it its entry must be ["{compiled_plugin.PROGRAM}"]'
    if isinstance(manifest.entry, tuple) and manifest.entry[0] == "node":
        return "its npm packages are those of a package-lock.json, which `npm install` writes"
    return (
        "it does not claim the wasm tier: add it to tiers; nor is its entry a program with go.mod, "
        "Cargo.toml or package-lock.json beside it"
    )


def _builder(manifest: Manifest) -> tuple[Path, bool, Callable[[], object]]:
    """Where its build is, whether that is up to date, and what makes it."""
    folder, entry = manifest.folder, manifest.entry
    if node_plugin.needs_packages(manifest):
        current = node_plugin.is_current(folder)
        return folder / "build", current, lambda: node_plugin.build(folder)
    if tools := compiled_plugin.toolchain_of(manifest):
        current = compiled_plugin.is_current(folder, tools)
        made = folder / compiled_plugin.PROGRAM
        return made, current, lambda: compiled_plugin.build(folder, tools)
    if "wasm" not in manifest.tiers or not isinstance(entry, str):
        raise ManifestError(f"{folder}/plugin.toml: nothing to build: {_why_nothing(manifest)}")
    from .runtimes.wasm import build as wasm  # with its engine

    out = wasm.built_path(folder, entry)
    current = wasm.is_current(folder, entry, out)
    return out, current, lambda: wasm.build_component(folder, entry, out, wasm.wit_dir())
