"""Which tool a question is for: ridge regression on what it means and on its words.

The kernel of two questions is the cosine of their sentence embeddings, plus WORDS times the cosine
of their words and pairs of words, weighted by rarity (tf-idf). One class for each tool and one for
rejects; a class counts by the root of its size, so that a tool with two examples is not drowned.
With a few hundred examples the solution is exact and takes milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from intent_words import shape, words_of

Array = Any
"""An `np.ndarray` of float64."""

WORDS = 0.8
"""Weight of the words beside the meaning; tuned on tests/data/dev_intents.json, as the others."""
RIDGE = 0.3
SHARPNESS = 5.0
"""Of the softmax that makes a score between 0 and 1 of the regression's values."""


class Index:
    """Learned from questions with the class of each."""

    def __init__(self, questions: Sequence[str], classes: Sequence[int], vectors: Array) -> None:
        """`classes`: 0 to n - 1; `vectors`: of length 1, one row for each question."""
        self._vectors = np.asarray(vectors, np.float64)
        self._words = Lexicon(questions)
        kernel = self._kernel(self._vectors, self._words.known)
        sizes = np.bincount(classes)
        weights = 1 / np.sqrt(sizes[list(classes)])
        weights *= len(weights) / weights.sum()
        target = np.eye(len(sizes))[list(classes)] * 2 - 1
        self._dual = np.linalg.solve(kernel + RIDGE * np.diag(1 / weights), target)

    def values(self, question: str, vector: Array) -> Array:
        """The regression's value of each class: near 1 where the question is of it, else -1."""
        words = self._words.row(question)
        found = self._kernel(np.asarray(vector, np.float64)[None], words[None]) @ self._dual
        return found[0]

    def _kernel(self, vectors: Array, words: Array) -> Array:
        said = np.flatnonzero(words.any(axis=0))  # of thousands of words a question has ten
        same = words[:, said] @ self._words.known[:, said].T
        # The 1 is the regression's constant term.
        return 1 + vectors @ self._vectors.T + WORDS * same


def shares(values: Array) -> Array:
    """Softmax: one number from 0 to 1 for each class, together 1."""
    powers = np.exp(SHARPNESS * (values - values.max()))
    return powers / powers.sum()


class Lexicon:
    """Words and pairs of neighbours of the known questions; `known` has a row for each."""

    def __init__(self, questions: Sequence[str]) -> None:
        counts = [_features(question) for question in questions]
        seen = Counter(name for features in counts for name in features)
        self._columns = {name: column for column, name in enumerate(seen)}
        self._weights = {name: math.log(len(questions) / n) for name, n in seen.items()}
        self.known = np.stack([self._row(features) for features in counts])

    def row(self, question: str) -> Array:
        return self._row(_features(question))

    def _row(self, features: Mapping[str, int]) -> Array:
        row = np.zeros(len(self._columns))
        for name in features:
            if name in self._columns:
                row[self._columns[name]] = self._weights[name]
        length = float(np.linalg.norm(row))
        return row / length if length else row


def _features(question: str) -> Counter[str]:
    words = [shape(word) for word in words_of(question) if not word.is_mark]
    pairs = [f"{a} {b}" for a, b in zip(["^", *words], [*words, "$"], strict=True)]
    return Counter([*words, *pairs])
