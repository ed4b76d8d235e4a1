"""`loom check`: settings, manifests, grants and this machine, without running a plugin."""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from loom_host import assembly, builds, status
from loom_host.confine.report import ENFORCED
from loom_host.handle import PluginHandle
from loom_host.models import installed, load_registry
from loom_host.settings import Settings
from loom_sdk.errors import LoomError

from .check_layers import layers_here, sandboxed, weak
from .check_remote import remote_findings
from .common import add_json, print_json, settings_of


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    level: str
    """`error` keeps something from working, `note` does not."""
    subject: str
    message: str
    fix: str


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("check", help="check settings, plugins and this machine")
    parser.add_argument("--explain", action="store_true", help="each plugin's reach, in words")
    add_json(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments.config)
    handles, findings = _handles(settings)
    findings += machine([handle for handle in handles if handle.spec.remote is None])
    strict = settings.host.require_enforced
    findings += [Finding(*told) for told in remote_findings(handles, require_enforced=strict)]
    profiles = sandboxed(handles)
    layers = layers_here() if profiles else {}
    level = "error" if strict else "note"
    findings += [Finding(level, *lacking) for lacking in weak(layers, profiles)]
    report = {
        "sandbox": {"profiles": profiles, "layers": layers},
        "plugins": [status.reach_row(handle, handles) for handle in handles],
        "findings": [asdict(finding) for finding in findings],
    }
    if arguments.json:
        print_json(report)
    else:
        _print(report, arguments.explain)
    return 1 if any(f.level == "error" for f in findings) else 0


def _handles(settings: Settings) -> tuple[list[PluginHandle], list[Finding]]:
    handles: list[PluginHandle] = []
    findings: list[Finding] = []
    manifests = assembly.manifests_of(settings)
    for name in assembly.chosen(settings, manifests):
        try:
            assembly.check_schemas(manifests[name])
            handles.append(assembly.make_handle(name, manifests[name], settings))
        except LoomError as error:
            findings.append(Finding("error", name, error.message, "see the message"))
    return handles, findings


PROGRAMS = (("tts-espeak", "espeak-ng", "apt install espeak-ng"),)
MODULES = (
    ("wake-openwakeword", "openwakeword"),
    ("stt-whisper", "faster_whisper"),
    ("stt-pocketsphinx", "pocketsphinx"),
    ("tts-piper", "piper"),
    ("vad", "webrtcvad"),
    ("audio-io", "soxr"),
    ("llm-local", "xllamacpp"),
    ("memory", "apsw"),
    ("memory", "sqlite_vec"),
)
EXTRAS = {"xllamacpp": "local-llm", "apsw": "memory", "sqlite_vec": "memory"}
"""That bring a module; those not named here are in `voice`."""
UNENFORCED = {
    "native": "memory, cpu, processes, open files: native code shares the host's process",
}


def machine(handles: list[PluginHandle]) -> list[Finding]:
    """What is missing on this machine for the chosen plugins, each with the line that mends it."""
    names = {handle.name for handle in handles}
    tiers = {handle.spec.tier for handle in handles}
    found: list[Finding] = []
    for plugin, module in MODULES:
        if plugin in names and importlib.util.find_spec(module) is None:
            found.append(_missing_module(plugin, module))
    found += _missing_models(handles)
    for handle in handles:
        if lack := builds.unbuilt(handle.manifest):
            found.append(Finding("error", handle.name, *lack))
    for plugin, program, fix in PROGRAMS:
        wanted = plugin in names or plugin.removeprefix("*") in tiers
        if wanted and shutil.which(program) is None:
            found.append(Finding("note", plugin.removeprefix("*"), f"{program} is missing", fix))
    if "audio-io" in names and ctypes.util.find_library("portaudio") is None:
        fix = "apt install libportaudio2"
        found.append(
            Finding("note", "audio-io", "no microphone or speaker: PortAudio is missing", fix)
        )
    for tier in sorted(tiers & set(UNENFORCED)):
        fix = (
            "run it in a stricter tier" if tier == "native" else "host.require_enforced refuses it"
        )
        found.append(Finding("note", tier, f"unenforced: {UNENFORCED[tier]}", fix))
    if any(h.spec.tier == "wasm" and h.spec.confined for h in handles):
        found += _weak_layers()
    return found


def _weak_layers() -> list[Finding]:
    """What a wasm worker process would not be held to on this machine."""
    from loom_host.runtimes.wasm.lockdown import foreseen

    fix = "the other layers still hold; loom ps shows them"
    return [Finding("note", "wasm", f"{layer}: {how}", fix) for layer, how in foreseen().items()]


def _missing_models(handles: list[PluginHandle]) -> list[Finding]:
    """Models of the registry that a chosen plugin's settings name and that are not pulled."""
    registry = load_registry()
    found = []
    for handle in handles:
        for value in handle.spec.config.values():
            if isinstance(value, str) and value in registry and not installed(value, registry):
                message = f"the model {value} is not on this machine"
                found.append(Finding("error", handle.name, message, f"loom models pull {value}"))
    return found


def _missing_module(plugin: str, module: str) -> Finding:
    if module == "openwakeword" and sys.version_info >= (3, 12):
        return Finding(
            "note",
            plugin,
            "openwakeword needs tflite-runtime, which has no release for Python 3.12 and later",
            'use wake-phrase alone: [roles] wake = ["wake-phrase"]',
        )
    extra = EXTRAS.get(module, "voice")
    fix = f"pip install 'loom-host[{extra}]'"
    return Finding("error", plugin, f"the Python package {module} is missing", fix)


def _print(report: dict[str, Any], explain: bool) -> None:
    for plugin in report["plugins"]:
        print(f"{plugin['name']} ({plugin['tier']})")
        if explain:
            for words in plugin["reach"]:
                print(f"    {words}")
            for asked in plugin["asked_not_granted"]:
                print(f"    asked for, not granted: {asked}")
    sandbox = report["sandbox"]
    if sandbox["layers"]:
        held = [name for name, how in sandbox["layers"].items() if how == ENFORCED]
        print(f"sandbox of child processes on this machine: {', '.join(held) or 'no layer'}")
    for name, profile in sandbox["profiles"].items():
        print(f"    {name}: {profile}")
    for finding in report["findings"]:
        print(f"{finding['level']}: {finding['subject']}: {finding['message']}")
        print(f"    {finding['fix']}")
    if not report["findings"]:
        print("all is well")
