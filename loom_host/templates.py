"""Which plugins `loom plugin new` can write: one table, and why the rest is not in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from loom_sdk.errors import ConfigError

LANGUAGES = ("python", "javascript", "c", "zig", "go", "rust")
TIERS = ("wasm", "grpc", "native")
KINDS = ("tool", "agent", "stt", "tts", "source")

_BUILD_EXTRA = "pip install 'loom-host[build]'"
_NODE = "Node.js 20 or newer (apt install nodejs npm)"


@dataclass(frozen=True, slots=True)
class Template:
    """One combination that there is."""

    lang: str
    tier: str
    kind: str
    folders: tuple[str, ...]
    """Below `sdk/templates`; a file of a later one replaces that of an earlier one."""
    entry: str = ""
    """As TOML; empty where the folder's own manifest says it."""
    programs: tuple[str, ...] = ()
    """What building it needs on PATH."""
    modules: tuple[str, ...] = ()
    """Python modules that it needs."""
    toolchain: str = ""
    """How to get all that."""

    def lacking(self) -> list[str]:
        """What of it is not on this machine."""
        programs = [name for name in self.programs if shutil.which(name) is None]
        return programs + [name for name in self.modules if find_spec(name) is None]


def _python() -> Iterator[Template]:
    for tier in TIERS:
        for kind in KINDS:
            if (tier, kind) != ("wasm", "source"):
                yield Template("python", tier, kind, (f"python-{kind}",))


def _wasm() -> Iterator[Template]:
    zig = (), ("ziglang",), _BUILD_EXTRA
    for lang, ending, needs in (
        ("javascript", "js", (("node",), (), f"{_NODE} and componentize-js, as the build says")),
        ("c", "c", zig),
        ("zig", "zig", zig),
    ):
        tool = ("any-tool", f"wasm-{ending}")
        agent = ("any-agent", f"wasm-{ending}-agent")
        for kind, folders in (("tool", tool), ("agent", agent)):
            yield Template(lang, "wasm", kind, folders, f'"main.{ending}"', *needs)


def _grpc() -> Iterator[Template]:
    protoc = ("grpc_tools",)
    go = ("go",), protoc, f"Go 1.26 or newer (https://go.dev/dl) and {_BUILD_EXTRA}"
    rust = ("cargo",), protoc, f"Rust 1.88 or newer (https://rustup.rs) and {_BUILD_EXTRA}"
    for lang, kinds, entry, needs in (
        ("javascript", KINDS, '["node", "main.js"]', (("node", "npm"), (), _NODE)),
        ("go", ("tool", "agent", "source"), '["build/plugin"]', go),
        ("rust", ("tool", "agent", "source"), '["build/plugin"]', rust),
    ):
        for kind in kinds:
            folders = (f"any-{kind}", f"{lang}-grpc", f"{lang}-grpc-{kind}")
            yield Template(lang, "grpc", kind, folders, entry, *needs)


TEMPLATES: tuple[Template, ...] = (*_python(), *_wasm(), *_grpc())
"""All that there is."""

_NOT: dict[tuple[str, str], str] = {
    ("go", "wasm"): "Go's own compiler makes no components; one that TinyGo makes of "
    'sdk/wit/plugin.wit is a plugin with entry = "plugin.wasm"',
    ("rust", "wasm"): "a component needs Rust's wasm target, which `rustup target add "
    "wasm32-wasip2` gets; one made with wit-bindgen of sdk/wit/plugin.wit is a plugin with "
    'entry = "plugin.wasm"',
    ("c", "grpc"): "gRPC has no library for C; heavy C code is a library that a plugin in "
    "Python, Go or Rust calls, small C code runs in the wasm tier",
    ("zig", "grpc"): "gRPC has no library for Zig",
}
"""Of pairs without any template, why."""


def find(lang: str, tier: str, kind: str) -> Template:
    """The template of a combination.

    Raises:
        ConfigError: there is none; the message says why and lists what the language has.
    """
    for template in TEMPLATES:
        if (template.lang, template.tier, template.kind) == (lang, tier, kind):
            return template
    raise ConfigError(
        f"there is no template for --lang {lang} --tier {tier} --type {kind}"
        f"{_why_not(lang, tier, kind)}; {lang} has: {_has(lang)}; `loom plugin new --list` "
        "tells all"
    )


def tiers_of(lang: str, kind: str = "") -> tuple[str, ...]:
    """Those in which a language has templates, best first."""
    rows = [t for t in TEMPLATES if t.lang == lang and kind in ("", t.kind)]
    return tuple(tier for tier in TIERS if any(row.tier == tier for row in rows))


def kinds_of(lang: str, tier: str) -> tuple[str, ...]:
    """The kinds that a language has in a tier."""
    return tuple(t.kind for t in TEMPLATES if (t.lang, t.tier) == (lang, tier))


def _why_not(lang: str, tier: str, kind: str) -> str:
    if tier == "native" and lang != "python":
        return ": native plugins run inside the host, which is Python"
    if tier == "wasm" and kind == "source":
        return ": a source runs by itself, which no wasm guest does"
    if why := _NOT.get((lang, tier)):
        return f": {why}"
    return f": begin with --type {kinds_of(lang, tier)[0]}, whose code serves any capability"


def _has(lang: str) -> str:
    rows = ((tier, kinds_of(lang, tier)) for tier in tiers_of(lang))
    return ", ".join(f"--tier {tier} --type {'|'.join(kinds)}" for tier, kinds in rows)
