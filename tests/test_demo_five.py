"""Five spoken questions, five tools: answered aloud by the quick path, with nothing outside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loom_host import node_plugin
from loom_host.cli.demo_five import FOLDER, ask_all, questions
from loom_host.cli.demo_weather import answer
from loom_sdk.models import models_dir

from .support import ROOT


def test_the_five_recordings_need_five_tools_and_are_small() -> None:
    rows = questions()
    assert len({row["tool"] for row in rows}) == len(rows) == 5
    assert {row["file"] for row in rows} == {path.name for path in FOLDER.glob("*.wav")}
    assert all((FOLDER / row["file"]).stat().st_size < 1_000_000 for row in rows)


def test_the_weather_server_knows_one_town() -> None:
    assert answer("/v1/search", {"name": "berlin"})["results"][0]["country_code"] == "DE"
    assert "results" not in answer("/v1/search", {"name": "Atlantis"})
    assert answer("/v1/forecast", {})["current"]["weather_code"] == 3
    assert answer("/elsewhere", {}) is None


@pytest.mark.slow
async def test_five_spoken_questions_are_answered_by_the_quick_path(tmp_path: Path) -> None:
    for model in ("minilm-l6-v2", "whisper-tiny.en", "piper-en_US-joe-medium"):
        if not (models_dir() / model).is_dir():
            pytest.skip(f"needs `loom models pull {model}`")
    if shutil.which("node") is None or not node_plugin.is_current(
        ROOT / "plugins" / "grpc" / "unit-converter"
    ):
        pytest.skip("needs Node and `loom plugin build plugins/grpc/unit-converter`")
    score = await ask_all("quick", "fast", tmp_path)
    assert score["right"] == score["of"] == 5, score["answers"]
    assert {row["path"] for row in score["answers"]} == {"quick"}
    assert {row["route"]["route"] for row in score["answers"]} == {"Local"}
