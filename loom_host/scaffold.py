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

LANGUAGES = ("python", "javascript", "c", "zig")
KINDS = ("tool", "agent", "stt", "tts", "source")
TIERS = ("wasm", "grpc", "native")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FOLDERS = {"javascript": "wasm-js", "c": "wasm-c", "zig": "wasm-zig"}
_TOOLCHAINS = {
    "javascript": "Node.js 20 (apt install nodejs npm) and `loom plugin build`",
    "c": "pip install 'loom-host[build]'",
    "zig": "pip install 'loom-host[build]'",
}
_SUITE = '''"""Every example in plugin.toml gives what it says, in a real host."""

import asyncio
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def test_its_examples_hold(loom_host):
    async def run():
        async with loom_host(HERE) as host:
            for table in tomllib.loads((HERE / "plugin.toml").read_text())["capability"]:
                for example in table.get("examples", ()):
                    answer = await host.invoke(table["name"], example["arguments"])
                    assert answer.output == example["output"]

    asyncio.run(run())
'''


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
        if self.lang == "python":
            if self.kind == "source" and self.tier == "wasm":
                raise ConfigError("a source runs by itself, which no wasm guest does: --tier grpc")
            return
        if (self.tier, self.kind) != ("wasm", "tool"):
            raise ConfigError(
                f"there is no template for a {self.kind} in {self.lang} for the {self.tier} tier; "
                f"{self.lang} has: --tier wasm --type tool; Python has all"
            )


def create(wish: Wish, folder: Path) -> list[Path]:
    """Write the project into `folder`; the files, in order.

    Raises:
        ConfigError: the wish cannot be had, or the folder is there and not empty.
    """
    wish.check()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: choose another --dir, or remove it")
    texts = _python(wish) if wish.lang == "python" else _other(wish)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "plugin.schema.json").write_text(json.dumps(plugin_schema(), indent=1) + "\n")
    (folder / "README.md").write_text(_readme(wish, folder))
    return sorted(folder.iterdir())


def _templates() -> Path:
    packaged = bundle("templates")
    return packaged if packaged.is_dir() else bundle("sdk") / "templates"


def _python(wish: Wish) -> dict[str, str]:
    stem = wish.name.replace("-", "_")
    words = {
        "name": wish.name,
        "publisher": wish.publisher,
        "tier": wish.tier,
        "module": f"{stem}_plugin",
        "class": "".join(part.capitalize() for part in wish.name.split("-")),
    }
    source = _templates() / f"python-{wish.kind}"
    names = {"plugin.py.in": f"{stem}_plugin.py", "test_plugin.py.in": f"test_{stem}.py"}
    return {
        names.get(path.name, path.name): filled(path.read_text(), words)
        for path in sorted(source.iterdir())
        if path.is_file()
    }


def _other(wish: Wish) -> dict[str, str]:
    texts = {p.name: p.read_text() for p in sorted((_templates() / _FOLDERS[wish.lang]).iterdir())}
    texts = {
        name: text.replace("acme/greeter", f"{wish.publisher}/{wish.name}").replace(
            "greeter.greet", f"{wish.name}.greet"
        )
        for name, text in texts.items()
    }
    head = "[plugin]\n"
    schema = f"#:schema ./plugin.schema.json\n{head}"
    licence = 'license = "MIT"\n\n[[capability]]'
    manifest = texts["plugin.toml"].replace(head, schema, 1).replace("\n[[capability]]", licence, 1)
    return texts | {"plugin.toml": manifest, f"test_{wish.name.replace('-', '_')}.py": _SUITE}


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
    needs = _TOOLCHAINS.get(wish.lang)
    words = {
        "name": wish.name,
        "description": manifest.description,
        "folder": str(folder.resolve()),
        "allow": f"    allow = {{ {allow} }}",
        "needs": f"Building it needs {needs}.\n" if needs else "",
    }
    return filled((_templates() / "README.md.in").read_text(), words)
