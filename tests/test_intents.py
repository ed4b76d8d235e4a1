"""The matcher's score on utterances that were written without sight of the manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.intents import HELD_OUT, report
from loom_host import node_plugin
from loom_sdk.models import models_dir

from .support import ROOT

SETS = [HELD_OUT, HELD_OUT.with_stem("heldout_intents_2")]


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_held_out_set_has_a_hundred_utterances_for_eight_tools(path: Path) -> None:
    tools = [row["tool"] for row in rows_of(path)]
    assert (len(tools), tools.count(None)) == (100, 20)
    assert {tools.count(tool) for tool in set(tools) - {None}} == {10}
    assert len(set(tools)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
async def test_nine_of_ten_held_out_utterances_are_understood(path: Path) -> None:
    if not (models_dir() / "minilm-l6-v2").is_dir():
        pytest.skip("needs `loom models pull minilm-l6-v2`")
    if shutil.which("node") is None or not node_plugin.is_current(
        ROOT / "plugins" / "grpc" / "unit-converter"
    ):
        pytest.skip("needs Node and `loom plugin build plugins/grpc/unit-converter`")
    found = (await report(rows_of(path), llm=False))["intent-minilm"]
    assert found["right"] >= 90, found["misses"]
    assert found["rejects_right"] >= 18, found["misses"]
