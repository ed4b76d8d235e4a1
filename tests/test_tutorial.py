"""The tutorial, followed by the letter: from an empty folder to an answer of the voice agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loom_sdk.models import models_dir

from .docs_runner import Block, Reader, blocks_of
from .support import ROOT

PAGE = ROOT / "docs" / "TUTORIAL.md"
MODELS = ("minilm-l6-v2", "whisper-tiny.en", "piper-en_US-joe-medium", "smollm2-135m-instruct")
CHOICE = "--tier wasm"
"""What the page says to exchange for another tier, in two commands; the manifest has it once."""


def blocks_for(tier: str) -> list[Block]:
    """The page as somebody reads it who chose this tier."""
    blocks = blocks_of(PAGE)
    chosen = [b.text for b in blocks if CHOICE in b.text or 'tier = "wasm"' in b.text]
    assert len(chosen) == 3, "the page has other choices of a tier than it had"
    swaps = {CHOICE: f"--tier {tier}", '\ntier = "wasm"': f'\ntier = "{tier}"'}
    mine = [b for b in blocks if b.verb != "in" or b.detail == tier]
    for old, new in swaps.items():
        mine = [replace(b, text=b.text.replace(old, new)) for b in mine]
    return mine


def table(took: list[tuple[str, float]]) -> str:
    rows = [f"{seconds:8.2f} s  {command.splitlines()[0]}" for command, seconds in took]
    return "\n".join([*rows, f"{sum(seconds for _, seconds in took):8.2f} s  in all"])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "empty").mkdir()
    made = Reader(tmp_path / "empty")
    yield made
    made.close()


@pytest.mark.timeout(900)  # on a machine that is shared; python -m bench tutorial measures
@pytest.mark.parametrize(
    "tier",
    [pytest.param("wasm", marks=pytest.mark.soak), pytest.param("grpc", marks=pytest.mark.slow)],
)
def test_the_tutorial_can_be_followed_by_the_letter(tier: str, reader: Reader) -> None:
    if missing := [m for m in MODELS if not (models_dir() / m).is_dir()]:
        pytest.skip(f"needs `loom models pull {' '.join(missing)}`")
    try:
        reader.follow(blocks_for(tier))
    finally:
        print(f"\n{tier}\n{table(reader.took)}")
