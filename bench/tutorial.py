"""Machine time of docs/TUTORIAL.md, followed by the letter: the sum of its commands' seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.docs_runner import Reader
from tests.test_tutorial import blocks_for, table

from .table import Row, row

ROUNDS = 3
TARGETS_S = {"wasm": 60, "grpc": 20}


def rows() -> list[Row]:
    made = []
    for tier, target in TARGETS_S.items():
        seconds = [_followed(tier) for _ in range(ROUNDS)]
        made.append(row(f"tutorial, {tier}", seconds, "s", target=target))
    return made


def _followed(tier: str) -> float:
    with tempfile.TemporaryDirectory(prefix="loom-tutorial-") as place:
        folder = Path(place) / "empty"
        folder.mkdir()
        reader = Reader(folder)
        try:
            reader.follow(blocks_for(tier))
        finally:
            reader.close()
        print(table(reader.took))
        return sum(seconds for _, seconds in reader.took)
