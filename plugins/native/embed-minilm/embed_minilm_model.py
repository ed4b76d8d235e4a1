"""The forward pass of all-MiniLM-L6-v2 in NumPy, read straight from its safetensors file.

BERT (Devlin et al. 2018) with 6 layers, 12 heads and 384 dimensions, then the mean over the tokens,
brought to length 1 (Reimers and Gurevych 2019). The weights are mapped, not copied: they are paged
in as they are used and shared with every other process that reads the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loom_sdk.errors import ModelMissing

Array = Any
"""An `np.ndarray` of float32."""

HEADS = 12
EPSILON = 1e-12
"""Of layer normalisation, from the model's config.json."""
MASKED = np.float32(-1e9)
BATCH_TOKENS = 2048
"""Padded tokens worked on at once: about 100 MB of intermediate values."""


class MiniLm:
    """The model's weights and what they do; it keeps no state between calls."""

    def __init__(self, path: Path) -> None:
        """Raises ModelMissing where the file is none of this model."""
        weights = tensors(path)
        try:
            self._words = weights["embeddings.word_embeddings.weight"]
            # Every token is of the first of BERT's two sentences.
            kind = weights["embeddings.token_type_embeddings.weight"][0]
            self._places = weights["embeddings.position_embeddings.weight"] + kind
            self._norm = _pair(weights, "embeddings.LayerNorm")
            count = sum(name.endswith("attention.self.query.weight") for name in weights)
            self._layers = [_Layer(weights, f"encoder.layer.{i}") for i in range(count)]
        except KeyError as error:
            raise ModelMissing(
                f"{path} has no tensor {error}: it is not a BERT sentence model; "
                "run `loom models pull minilm-l6-v2`"
            ) from error

    @property
    def dimensions(self) -> int:
        return int(self._words.shape[1])

    def embed(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Vectors of length 1, shape (len(tokens), dimensions), from token ids with both marks."""
        vectors = np.empty((len(tokens), self.dimensions), np.float32)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for part in _batches(order, tokens):
            vectors[part] = self._batch([tokens[i] for i in part])
        return vectors

    def _batch(self, tokens: Sequence[Sequence[int]]) -> Array:
        longest = len(tokens[-1])
        ids = np.zeros((len(tokens), longest), np.int64)
        real = np.zeros((len(tokens), longest), np.float32)
        for row, given in enumerate(tokens):
            ids[row, : len(given)] = given
            real[row, : len(given)] = 1
        state = _normalised(self._words[ids] + self._places[:longest], *self._norm)
        bias = ((1 - real) * MASKED)[:, None, None, :] if real.min() == 0 else None
        for layer in self._layers:
            state = layer(state, bias)
        mean = np.einsum("btd,bt->bd", state, real) / real.sum(axis=1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


class _Layer:
    """One block: attention, then two dense steps, each added to its input and normalised."""

    def __init__(self, weights: dict[str, Array], name: str) -> None:
        inner = f"{name}.attention.self"
        parts = [_pair(weights, f"{inner}.{part}") for part in ("query", "key", "value")]
        # One product instead of three.
        self._qkv = np.concatenate([w for w, _ in parts]).T, np.concatenate([b for _, b in parts])
        self._out = _dense(weights, f"{name}.attention.output.dense")
        self._norm = _pair(weights, f"{name}.attention.output.LayerNorm")
        self._up = _dense(weights, f"{name}.intermediate.dense")
        self._down = _dense(weights, f"{name}.output.dense")
        self._last_norm = _pair(weights, f"{name}.output.LayerNorm")

    def __call__(self, state: Array, bias: Array | None) -> Array:
        state = _normalised(state + _apply(self._attended(state, bias), self._out), *self._norm)
        raised = gelu(_apply(state, self._up))
        return _normalised(state + _apply(raised, self._down), *self._last_norm)

    def _attended(self, state: Array, bias: Array | None) -> Array:
        count, length, width = state.shape
        split = _apply(state, self._qkv).reshape(count, length, 3, HEADS, width // HEADS)
        query, key, value = split.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width // HEADS))
        if bias is not None:
            scores += bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).transpose(0, 2, 1, 3).reshape(count, length, width)


def tensors(path: Path) -> dict[str, Array]:
    """Every float32 tensor of a safetensors file, mapped read-only.

    The format: 8 bytes of little-endian length, that much JSON with dtype, shape and offsets,
    then the data (https://github.com/huggingface/safetensors, version 0.x).

    Raises:
        ModelMissing: there is no such file, or it is of another format.
    """
    try:
        raw = np.memmap(path, np.uint8, "r")
        size = int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8 : 8 + size].tobytes())
        data = raw[8 + size :]
        return {
            name: data[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
            for name, entry in header.items()
            if entry.get("dtype") == "F32"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelMissing(
            f"{path} is not a readable safetensors file ({error}): "
            "run `loom models pull minilm-l6-v2`"
        ) from error


def _pair(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _dense(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    weight, bias = _pair(weights, name)
    return weight.T, bias


def _apply(state: Array, dense: tuple[Array, Array]) -> Array:
    count, length, width = state.shape
    # As one matrix: NumPy would make a product for each text of the batch.
    flat = state.reshape(count * length, width) @ dense[0]
    flat += dense[1]
    return flat.reshape(count, length, -1)


def _normalised(state: Array, weight: Array, bias: Array) -> Array:
    centred = state - state.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + np.float32(EPSILON))
    return centred / spread * weight + bias


def gelu(x: Array) -> Array:
    """x times the normal distribution function of x, in float32.

    The error function is Abramowitz and Stegun 7.1.26, wrong by at most 1.5e-7.
    """
    size = np.abs(x) * np.float32(0.7071067811865476)
    t = 1 / (1 + np.float32(0.3275911) * size)
    rest = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        rest *= t
        rest += np.float32(factor)
    rest *= t * np.exp(-size * size)
    # rest = erfc(size); the function is 1 - rest/2 right of zero and rest/2 left of it.
    return x * np.where(x >= 0, 1 - rest / 2, rest / 2)


def _batches(order: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """`order`, by rising length, cut so that each part has at most BATCH_TOKENS when padded."""
    parts: list[list[int]] = []
    for index in order:
        if parts and (len(parts[-1]) + 1) * len(tokens[index]) <= BATCH_TOKENS:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts
