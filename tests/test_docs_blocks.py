"""Every code block of the documents is what it says: files load, programs run, commands work."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loom_host.cli.main import build_parser
from loom_host.config import load_settings
from loom_host.conformance.plan import STAND_INS, StandIns, plan_of
from loom_host.manifest import TABLES, load_manifest

from .docs_runner import BLOCKS, LANGUAGES, VERBS, Block, blocks_of, hidden_in, pages
from .support import ROOT

SKIPPED_AT_MOST = 8
_PLUGIN = {
    "id": "me/page",
    "version": "1.0.0",
    "api": "1",
    "type": "tool",
    "tier": "grpc",
    "entry": "page:Page",
}


def of(*languages: str) -> list[Any]:
    return [pytest.param(b, id=str(b)) for b in BLOCKS if b.language in languages]


# -- what there is


def test_every_block_says_its_language() -> None:
    assert not [str(b) for b in BLOCKS if b.language not in LANGUAGES]
    assert not [str(b) for b in BLOCKS if b.verb not in ("", *VERBS)]


def test_no_code_hides_in_an_indentation() -> None:
    assert not {str(page): lines for page in pages() if (lines := hidden_in(page))}


def test_commands_are_not_passed_off_as_text() -> None:
    shell = re.compile(r"^(\$ |loom [a-z]+|python -m |make |pip install )", re.MULTILINE)
    texts = [b for b in BLOCKS if b.language == "text" and b.verb != "prints"]
    assert not [str(b) for b in texts if shell.search(b.text)]


def test_what_is_not_run_has_a_reason_and_is_little() -> None:
    skipped = [b for b in BLOCKS if b.verb == "skip"]
    for block in skipped:
        print(f"{block}: {block.detail}")
        assert len(block.detail.split()) >= 3, block
    assert len(skipped) <= SKIPPED_AT_MOST, [str(b) for b in skipped]


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in BLOCKS if b.verb == "by"])
def test_the_test_that_is_named_is_there(block: Block) -> None:
    file, _, name = block.detail.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}  # fmt: skip  # noqa: E501
    assert name in defined, f"{file} has no {name}"


# -- data


@pytest.mark.parametrize("block", of("json"))
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of("toml"))
def test_toml_is_settings_a_manifest_or_what_a_test_finds(block: Block, tmp_path: Path) -> None:
    data = tomllib.loads(block.text)
    assert data, f"{block}: empty"
    if set(data) <= set(TABLES[""]):
        (tmp_path / "plugin.toml").write_text(_completed(block.text, data.get("plugin", {})))
        load_manifest(tmp_path / "plugin.toml")
    elif set(data) <= set(StandIns.__dataclass_fields__):
        (tmp_path / "plugin.toml").write_text(_completed("", {}))
        (tmp_path / STAND_INS).write_text(block.text)
        for beside in data.get("payloads", {}).values():
            (tmp_path / beside["file"]).touch()
        plan_of(tmp_path)
    else:
        (tmp_path / "loom.toml").write_text(block.text)
        load_settings(tmp_path / "loom.toml")


def _completed(text: str, head: Mapping[str, Any]) -> str:
    """A manifest, of which a page may show a part, with the keys that it must have."""
    head = {**_PLUGIN, **head}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in head.items())
    rest = re.sub(r"^\[plugin\]\n(?:[^\[\n].*\n)*", "", text, flags=re.MULTILINE)
    return f"[plugin]\n{lines}\n\n{rest}"


# -- commands


def _parsers() -> Mapping[str, Any]:
    """`loom call`, `loom plugin new` ... -> its parser."""
    found: dict[str, Any] = {}

    def walk(parser: Any, words: str) -> None:
        found[words] = parser
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for name, child in action.choices.items():
                    walk(child, f"{words} {name}")

    walk(build_parser(), "loom")
    return found


def test_every_command_and_option_that_is_named_exists() -> None:
    parsers = _parsers()
    for page in pages():
        spans = re.findall(r"`(loom [^`]+)`", page.read_text())
        lines = [x for b in blocks_of(page) if b.language in ("sh", "console") for x in b.text.splitlines()]  # fmt: skip  # noqa: E501
        for text in spans + [x for line in lines for x in re.findall(r"(?:^|\$ )(loom [^#|]+)", line)]:  # fmt: skip  # noqa: E501
            _check_named(text, parsers, page)


def _check_named(text: str, parsers: Mapping[str, Any], page: Path) -> None:
    words = re.sub(r"^loom (-c|--config) \S+", "loom", text).split()
    command = "loom"
    for word in words[1:]:
        if f"{command} {word.split('|')[0].rstrip(',')}" not in parsers:
            break
        command += f" {word.split('|')[0].rstrip(',')}"
    assert command != "loom" or words[1].startswith("-"), f"{page}: no command in {text!r}"
    known = {option for action in parsers[command]._actions for option in action.option_strings}
    if any(action.nargs == "..." for action in parsers[command]._actions):
        return
    for option in re.findall(r"(?<=[\s\[])(--?[a-z][a-z-]*)", text):
        assert option in known | {"-c"}, f"{page}: {command} has no {option}"


def test_every_command_is_told_with_its_verb() -> None:
    texts = "\n".join(page.read_text() for page in pages())
    missing = [w for w in _parsers() if not re.search(rf"{re.escape(w)}\b", _unfolded(texts))]
    assert not missing


def _unfolded(text: str) -> str:
    """`loom models list|pull` as two commands."""
    pattern = r"(loom [a-z]+(?: [a-z]+)?) ([a-z]+(?:\|[a-z]+)+)"
    return re.sub(pattern, lambda m: ", ".join(f"{m[1]} {w}" for w in m[2].split("|")), text)


# -- links


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{target}: no such file"
        assert not anchor or anchor in _anchors(place), f"{target}: no such heading"
