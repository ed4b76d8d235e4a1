"""`memory.search` over 100,000 vectors of 384 numbers, beside NumPy's exact search in memory.

The vectors lie around 2,000 centres, as texts do around subjects; a question is one of them, moved.
The memory and NumPy answer each question one after the other.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from base64 import b85encode
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loom_host import Host, load_settings
from loom_host.discovery import code_hash

from .table import Row, row

COUNT, SIZE, QUESTIONS, K, STEP = 100_000, 384, 25, 10, 2000
PLUGIN = Path(__file__).parent.parent / "plugins" / "grpc" / "memory"
MANIFEST = """
[plugin]
id = "bench/vectors"
version = "1"
api = "1"
type = "model_backend"
tier = "native"
entry = "bench_vectors_plugin:Vectors"
[[capability]]
name = "embed.text"
effects = "none"
"""
CODE = """
import base64
from loom_sdk import Plugin, Result, capability

class Vectors(Plugin):
    @capability("embed.text", effects="none")
    def embed(self, ctx, texts: list[str]) -> Result:
        data = b"".join(base64.b85decode(text) for text in texts)
        return Result({"dimensions": 384, "model": "bench", "count": len(texts)}, data)
"""
Array = npt.NDArray[np.float32]


def unit(rows: Any) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), "<f4")


def made() -> tuple[Array, Array]:
    """Vectors of length 1 to search in, and questions."""
    chance = np.random.default_rng(7)
    centres = chance.standard_normal((2000, SIZE))
    rows = centres[chance.integers(2000, size=COUNT)] + chance.standard_normal((COUNT, SIZE))
    asked = rows[chance.integers(COUNT, size=QUESTIONS)]
    return unit(rows), unit(asked + 0.5 * chance.standard_normal(asked.shape))


def fill(file: Path, rows: Array) -> None:
    """As `memory.append` does, in larger steps and without a call for each."""
    file.parent.mkdir(parents=True)
    sys.path.append(str(PLUGIN))
    items: Any = import_module("memory_items")
    store: Any = import_module("memory_store").MemoryStore(file, durable=False)
    for start in range(0, COUNT, STEP):
        part = rows[start : start + STEP]
        entries = [items.Entry(str(start + i), time_ms=1) for i in range(len(part))]
        store.append("host", 1, entries, items.Vectors("bench", SIZE, part.tobytes()))
    store.close()


def settings_of(folder: Path) -> Any:
    place = folder / "plugins" / "vectors"
    place.mkdir(parents=True)
    (place / "plugin.toml").write_text(MANIFEST)
    (place / "bench_vectors_plugin.py").write_text(CODE)
    vectors = {"trusted": True, "code": code_hash(place), "allow": {"provide": ["embed.text"]}}
    allow = {"provide": ["memory.*"], "invoke": ["embed.text", "loom.*"]}
    return load_settings(
        None,
        {
            "host": {"plugin_paths": [str(place.parent)], "data_dir": str(folder / "data")},
            "telemetry": {"sample_ratio": 0.0, "log_level": "error"},
            "plugins": {"vectors": vectors, "memory": {"allow": allow}},
        },
    )


async def measured(folder: Path, rows: Array, asked: Array) -> tuple[list[float], ...]:
    """Milliseconds of the memory and of NumPy, and recall, for each question."""
    took: tuple[list[float], ...] = ([], [], [])
    async with Host(settings_of(folder)) as host:
        for number, question in enumerate([asked[0], *asked]):
            query = {"query": b85encode(question.tobytes()).decode(), "k": K}
            began = time.perf_counter()
            answer = (await host.invoke("memory.search", query)).output["items"]
            ended = time.perf_counter()
            scores = rows @ question
            exact = np.argpartition(-scores, K)[:K]
            floor = time.perf_counter()
            if number:  # the first one reads the file from the disk
                found = {int(item["text"]) for item in answer}
                recall = len(found & set(exact.tolist())) / K
                for values, value in zip(
                    took, ((ended - began) * 1e3, (floor - ended) * 1e3, recall), strict=True
                ):
                    values.append(value)
    return took


def rows() -> list[Row]:
    vectors, asked = made()
    with tempfile.TemporaryDirectory() as root:
        fill(Path(root) / "data" / "plugins" / "loom" / "memory" / "memory.sqlite", vectors)
        took, floors, recalls = asyncio.run(measured(Path(root), vectors, asked))
    name = "memory.search, 100,000 x 384"
    return [
        row(f"{name}, p50", took, "ms", peer="NumPy, all in memory", floors=floors),
        row(f"{name}, recall@10", recalls, "", peer="exact search", target=0.95, at_least=True),
    ]
