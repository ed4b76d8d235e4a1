"""`embed.text` against published cosines, and what it does at its borders."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from loom_sdk import Plugin
from loom_sdk.errors import ModelMissing
from loom_sdk.models import models_dir

from .support import load_plugin, run_capability, start

MODEL = "minilm-l6-v2"


@cache
def minilm() -> Plugin:
    pytest.importorskip("tokenizers", reason="needs loom-host[voice]")
    if not (models_dir() / MODEL).is_dir():
        pytest.skip(f"needs `loom models pull {MODEL}`")
    plugin = load_plugin("native", "embed-minilm")
    start(plugin)
    return plugin


def embed(*texts: str, **arguments: Any) -> npt.NDArray[np.float32]:
    result = run_capability(minilm(), "embed.text", {"texts": list(texts), **arguments})
    assert result.content_type == "application/x-float32"
    assert result.output["count"] == len(texts)
    vectors = np.frombuffer(result.payload, "<f4")
    return vectors.reshape(len(texts), result.output["dimensions"])


def test_cosines_are_those_that_the_reference_implementation_publishes() -> None:
    # https://sbert.net/docs/quickstart.html, all-MiniLM-L6-v2 with PyTorch.
    vectors = embed(
        "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert np.allclose(vectors @ vectors.T, published, atol=1e-4)


def test_vectors_have_384_numbers_and_length_one() -> None:
    vectors = embed("one", "", "Grüße aus Köln 🎉", "word " * 4000)
    assert vectors.shape == (4, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones() -> None:
    together = embed("tea please", "a much longer sentence that asks for a pot of tea at five")
    minilm()._kept.clear()  # type: ignore[attr-defined]
    assert np.allclose(together[0], embed("tea please")[0], atol=1e-5)


def test_texts_that_were_cut_are_named() -> None:
    result = run_capability(minilm(), "embed.text", {"texts": ["short", "word " * 400]})
    assert result.output["cut"] == [1]
    again = run_capability(minilm(), "embed.text", {"texts": ["word " * 400]})
    assert again.output["cut"] == [0]


def test_json_holds_the_same_vectors_as_the_payload() -> None:
    result = run_capability(minilm(), "embed.text", {"texts": ["a", "b", "a"], "format": "json"})
    assert result.payload == b""
    assert np.allclose(json.loads(json.dumps(result.output))["vectors"], embed("a", "b", "a"))


def test_the_memory_of_texts_keeps_to_its_limit() -> None:
    plugin = load_plugin("native", "embed-minilm", remembered=2)
    start(plugin)
    run_capability(plugin, "embed.text", {"texts": ["a", "b", "c", "c"]})
    assert list(plugin._kept) == ["b", "c"]  # type: ignore[attr-defined]


def test_a_model_that_was_not_pulled_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="loom models pull nowhere"):
        start(load_plugin("native", "embed-minilm", model="nowhere"))
    tokenizer = models_dir() / MODEL / "tokenizer.json"
    if not tokenizer.is_file():
        pytest.skip(f"needs `loom models pull {MODEL}`")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    with pytest.raises(ModelMissing, match="safetensors"):
        start(load_plugin("native", "embed-minilm", model=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelMissing, match="safetensors"):
        start(load_plugin("native", "embed-minilm", model=str(tmp_path)))
    empty = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "model.safetensors").write_bytes(
        len(empty).to_bytes(8, "little") + empty + bytes(4)
    )
    with pytest.raises(ModelMissing, match="has no tensor"):
        start(load_plugin("native", "embed-minilm", model=str(tmp_path)))
