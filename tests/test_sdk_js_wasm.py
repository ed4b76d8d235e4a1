"""The types of the JavaScript SDK for the wasm tier name all that it has."""

from __future__ import annotations

import re

from .support import ROOT

SDK = ROOT / "sdk" / "js" / "wasm"
CODE, TYPES = (SDK / "loom.js").read_text(), (SDK / "loom.d.ts").read_text()


def body(text: str, head: str) -> str:
    """Of a class or interface, up to the brace that closes it at the margin."""
    found = re.search(rf"^export {head}\b[^\n]*\{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    assert found, head
    return found[1]


def test_every_export_has_a_type() -> None:
    pattern = r"^export (?:class|const|function) (\w+)"
    exported = set(re.findall(pattern, CODE, re.MULTILINE))
    typed = set(re.findall(pattern, TYPES, re.MULTILINE))
    assert exported - {"Context"} == typed  # plugins are given a Context, they make none


def test_the_context_has_the_methods_and_fields_of_the_code() -> None:
    code, types = body(CODE, "class Context"), body(TYPES, "interface Context")
    methods = set(re.findall(r"^  (\w+)\(.*\{$", code, re.MULTILINE)) - {"constructor"}
    assert methods == set(re.findall(r"^  (\w+)[(<]", types, re.MULTILINE))
    fields = set(re.findall(r"^    this\.(\w+) =", code, re.MULTILINE)) | {"kv"}
    assert fields == set(re.findall(r"^  readonly (\w+):", types, re.MULTILINE))


def test_storage_and_parts_are_those_of_the_code() -> None:
    stored = re.search(r"^  kv = \{\n(.*?)^  \};", CODE, re.MULTILINE | re.DOTALL)
    assert stored
    keys = set(re.findall(r"^    (\w+):", stored[1], re.MULTILINE))
    assert keys == set(re.findall(r"^  (\w+)\(", body(TYPES, "interface KeyValue"), re.MULTILINE))
    taken = re.search(r"export function serve\(\{(.*?)\}\)", CODE)
    assert taken
    names = {part.split("=")[0].strip() for part in taken[1].replace("{}", "").split(",")}
    assert names == set(re.findall(r"^  (\w+)\?:", body(TYPES, "interface Parts"), re.MULTILINE))
