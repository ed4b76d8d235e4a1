"""A new plugin from a template: what the language, tier and kind ask for, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loom_sdk.errors import ConfigError

from .discovery import bundle
from .editor_schemas import plugin_schema
from .manifest import load_manifest
from .templates import Template, find

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_IGNORED = "__pycache__/\nbuild/\nnode_modules/\ntarget/\n"


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of plugin is wanted."""

    name: str
    lang: str = "python"
    tier: str = "wasm"
    kind: str = "tool"
    publisher: str = "me"

    def check(self) -> None:
        """Raises ConfigError that says what there is."""
        for word in (self.name, self.publisher):
            if not _NAME.fullmatch(word):
                raise ConfigError(f"{word!r}: lower case letters and digits, with single dashes")
        self.template()

    def template(self) -> Template:
        """Raises ConfigError that says what there is."""
        return find(self.lang, self.tier, self.kind)


def create(wish: Wish, folder: Path) -> list[Path]:
    """Write the project into `folder`; the files, in order.

    Raises:
        ConfigError: the wish cannot be had, or the folder is there and not empty.
    """
    wish.check()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: choose another --dir, or remove it")
    texts = _texts(wish)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "plugin.schema.json").write_text(json.dumps(plugin_schema(), indent=1) + "\n")
    (folder / ".gitignore").write_text(_IGNORED)
    (folder / "README.md").write_text(_readme(wish, folder))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _templates() -> Path:
    packaged = bundle("templates")
    return packaged if packaged.is_dir() else bundle("sdk") / "templates"


def _texts(wish: Wish) -> dict[str, str]:
    """The files of its template, filled in, by their path in the project."""
    stem = wish.name.replace("-", "_")
    template = wish.template()
    words = {
        "name": wish.name,
        "publisher": wish.publisher,
        "tier": wish.tier,
        "entry": template.entry,
        "memory": "64MiB" if wish.tier == "wasm" else "192MiB",
        "module": f"{stem}_plugin",
        "class": "".join(part.capitalize() for part in wish.name.split("-")),
    }
    names = {"plugin.py": f"{stem}_plugin.py", "test_plugin.py": f"test_{stem}.py"}
    texts: dict[str, str] = {}
    for folder in (_templates() / name for name in template.folders):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix().removesuffix(".in")
            texts[names.get(name, name)] = filled(_own(path.read_text(), wish), words)
    if "package.json" in texts:
        texts["package-lock.json"] = _package_lock(wish)
    if (wish.lang, wish.tier) == ("javascript", "wasm"):  # the build brings loom.js itself
        texts["loom.d.ts"] = (_js_sdk() / "wasm" / "loom.d.ts").read_text()
    return texts


def _own(text: str, wish: Wish) -> str:
    """Of the templates that are plugins themselves and can be copied by hand."""
    if 'id = "acme/greeter"' in text:
        text = text.replace("[plugin]\n", "#:schema ./plugin.schema.json\n[plugin]\n", 1)
        text = text.replace("\n[[capability]]", 'license = "MIT"\n\n[[capability]]', 1)
    text = text.replace("acme/greeter", f"{wish.publisher}/{wish.name}")
    return text.replace("greeter.greet", f"{wish.name}.greet")


def _package_lock(wish: Wish) -> str:
    """That of the JavaScript SDK, since a new plugin has the packages of the SDK and no others."""
    lock = json.loads((_js_sdk() / "package-lock.json").read_text())
    own = {"name": wish.name, "version": "0.1.0"}
    lock |= own
    lock["packages"][""] |= own | {"license": "MIT"}
    return json.dumps(lock, indent=2) + "\n"


def _js_sdk() -> Path:
    packaged = bundle("js")
    return packaged if packaged.is_dir() else bundle("sdk") / "js"


def _build_line(wish: Wish) -> str:
    if wish.lang == "python" and wish.tier != "wasm":
        return ""
    why = "for the wasm tier" if wish.tier == "wasm" else "its test does so by itself"
    return f"    loom plugin build .         # once more after each change, {why}\n"


def filled(text: str, words: Mapping[str, str]) -> str:
    """`{{word}}` replaced. Raises KeyError where one is unknown."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: words[match[1]], text)


def _readme(wish: Wish, folder: Path) -> str:
    from .grants import asked_for

    manifest = load_manifest(folder / "plugin.toml")
    asked = asked_for(manifest)
    allow = ", ".join(
        f"{kind} = true" if kind == "storage" else f"{kind} = {json.dumps(list(values))}"
        for kind, values in asked.items()
    )
    template = wish.template()
    words = {
        "name": wish.name,
        "description": manifest.description,
        "folder": folder.resolve().name,
        "allow": f"    allow = {{ {allow} }}",
        "needs": f"Building it needs {template.toolchain}.\n" if template.toolchain else "",
        "build": _build_line(wish),
    }
    return filled((_templates() / "README.md.in").read_text(), words)
