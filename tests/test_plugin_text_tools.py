"""text-tools, built from C, against Python's own answers."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom_host import Host
from loom_host.manifest import load_manifest
from loom_sdk.errors import ActionFailed, InvalidArguments

from .support import ROOT
from .wasm_plugins import wasm_host

MANIFEST = load_manifest(ROOT / "plugins" / "wasm" / "text-tools" / "plugin.toml")
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
property_test = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Host]:
    async with wasm_host(tmp_path, "text-tools", allow={"provide": ["text.*"]}) as host:
        yield host


async def ask(host: Host, name: str, text: str, **arguments: Any) -> Any:
    return (await host.invoke(f"text.{name}", {"text": text, **arguments})).output


async def test_the_manifests_examples_are_true(tools: Host) -> None:
    for capability in MANIFEST.capabilities:
        for example in capability.examples:
            output = (await tools.invoke(capability.name, example["arguments"])).output
            assert {key: output[key] for key in example["output"]} == example["output"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", (0, 0, 0, 0, 0)),
        ("one", (3, 3, 1, 1, 1)),
        ("don't  stop. Why? v1.5!", (23, 12, 4, 3, 1)),
        ("a\nb\n", (4, 2, 2, 1, 2)),
        ("Grüße, 世界。", (10, 7, 2, 1, 1)),
        ("\U0001f600 ok", (4, 2, 1, 1, 1)),
    ],
)
async def test_counts(tools: Host, text: str, counts: tuple[int, ...]) -> None:
    output = await ask(tools, "count", text)
    names = ("characters", "letters", "words", "sentences", "lines")
    assert tuple(output[name] for name in names) == counts
    assert output["bytes"] == len(text.encode())


@pytest.mark.parametrize(
    ("to", "made"),
    [
        ("upper", "ÄRGER IN ÅRHUS. ЖИЗНЬ, DON'T!"),
        ("lower", "ärger in århus. жизнь, don't!"),
        ("title", "Ärger In Århus. Жизнь, Don't!"),
        ("sentence", "Ärger in århus. Жизнь, don't!"),
    ],
)
async def test_case_of_any_script(tools: Host, to: str, made: str) -> None:
    assert (await ask(tools, "case", "äRGER in århus. жизнь, don't!", to=to))["text"] == made


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Hello, World!", "hello-world"),
        ("  --A  b--  ", "a-b"),
        ("Straße Ærø Łódź", "strasse-aero-lodz"),
        ("don't", "dont"),
        ("Čeština žluťoučký ŐŰ ÿ", "cestina-zlutoucky-ou-y"),
        ("世界", ""),
    ],
)
async def test_slugs(tools: Host, text: str, slug: str) -> None:
    assert (await ask(tools, "slug", text))["text"] == slug


async def test_every_extended_latin_letter_has_its_plain_one(tools: Host) -> None:
    for code in range(0x100, 0x17F):
        first = unicodedata.normalize("NFD", chr(code))[0].lower()
        if first.isascii() and first.isalpha():
            assert (await ask(tools, "slug", chr(code)))["text"] == first, hex(code)


@pytest.mark.parametrize(
    ("text", "reverse"), [("abc", "cba"), ("e\u0301a", "ae\u0301"), ("😀ä", "ä😀"), ("", "")]
)
async def test_reverse_keeps_marks_with_their_letter(tools: Host, text: str, reverse: str) -> None:
    assert (await ask(tools, "reverse", text))["text"] == reverse


@pytest.mark.parametrize("size", [0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 100_000])
async def test_hashes_at_the_edges_of_their_blocks(tools: Host, size: int) -> None:
    text = "".join(chr(32 + index % 90) for index in range(size))
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert (await ask(tools, "hash", text))["hash"] == expected
    assert (await ask(tools, "hash", text, algorithm="crc32"))["hash"] == (
        f"{zlib.crc32(text.encode()):08x}"
    )


@property_test
@given(text=ANY_TEXT)
async def test_any_text_through_every_tool(tools: Host, text: str) -> None:
    raw = text.encode()
    assert (await ask(tools, "hash", text))["hash"] == hashlib.sha256(raw).hexdigest()
    packed = (await ask(tools, "base64", text))["text"]
    assert packed == base64.b64encode(raw).decode()
    assert (await ask(tools, "base64", packed.rstrip("="), to="decode"))["text"] == text
    assert (await ask(tools, "count", text))["characters"] == len(text)
    twice = (await ask(tools, "reverse", (await ask(tools, "reverse", text))["text"]))["text"]
    assert sorted(twice) == sorted(text)
    slug = (await ask(tools, "slug", text))["text"]
    assert slug.isascii()
    assert not slug.startswith("-")
    assert not slug.endswith("-")


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(last + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@property_test
@given(a=st.text("ab😀ä", max_size=12), b=st.text("ab😀ä", max_size=12))
async def test_distance_is_levenshteins(tools: Host, a: str, b: str) -> None:
    assert (await ask(tools, "distance", a, other=b))["distance"] == levenshtein(a, b)


async def test_what_cannot_be_done_is_told(tools: Host) -> None:
    for text, code in (("no base64!", "NOT_BASE64"), ("a", "NOT_BASE64"), ("/w==", "NOT_TEXT")):
        with pytest.raises(ActionFailed) as raised:
            await ask(tools, "base64", text, to="decode")
        assert raised.value.code == code
    with pytest.raises(ActionFailed, match="at most 2000") as raised:
        await ask(tools, "distance", "x" * 2001, other="")
    assert raised.value.code == "TOO_LONG"
    with pytest.raises(InvalidArguments):
        await ask(tools, "case", "x", to="sideways")
