"""`embed.text`: sentence embeddings with all-MiniLM-L6-v2 on the CPU, without torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.environment import kept
from loom_sdk.errors import ModelMissing, PluginLoadError
from loom_sdk.models import find

if TYPE_CHECKING:
    from embed_minilm_model import Array, MiniLm

CONTENT_TYPE = "application/x-float32"
"""Little-endian, row after row: `np.frombuffer(payload, "<f4").reshape(count, dimensions)`."""


class EmbedMiniLm(Plugin):
    """One model. It remembers the vectors of the texts it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self._model: MiniLm | None = None
        self._tokenizer: Any = None
        self._threads: Any = None
        self._kept: OrderedDict[str, tuple[Array, bool]] = OrderedDict()

    def start(self, ctx: Context) -> None:
        """Map the weights and embed one text, so that the first call takes as long as the second.

        Raises:
            ModelMissing: the model was not pulled.
            PluginLoadError: numpy, threadpoolctl or tokenizers is not installed.
        """
        folder = find(self.config["model"])
        try:
            from embed_minilm_model import MiniLm

            with kept():  # it sets a variable that is for others
                from threadpoolctl import ThreadpoolController
            from tokenizers import Tokenizer
        except ImportError as error:
            raise PluginLoadError(
                f"{error.name} is not installed: run `pip install 'loom-host[voice]'`"
            ) from error
        words = folder / "tokenizer.json"
        if not words.is_file():
            raise ModelMissing(f"{folder} has no {words.name}: run `loom models pull minilm-l6-v2`")
        self._tokenizer = Tokenizer.from_file(str(words))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.config["max_tokens"])
        self._model = MiniLm(folder / "model.safetensors")
        self._threads = ThreadpoolController()
        self._embedded(["warm"])

    def stop(self, ctx: Context) -> None:
        self._kept.clear()
        self._model = self._tokenizer = None

    @capability("embed.text", effects="none")
    def embed(
        self, ctx: Context, texts: list[str], format: Literal["binary", "json"] = "binary"
    ) -> Result:
        """Vectors of texts: the payload holds them one after the other as little-endian 32 bit
        floats, each of length 1.

        The cosine of two texts is the product of their vectors.

        Args:
            texts: what to embed; empty texts are allowed
            format: `json` puts the vectors into the answer as lists instead
        """
        import numpy as np

        rows = self._rows(texts)
        vectors = np.stack([vector for vector, _ in rows])
        output: dict[str, Any] = {
            "dimensions": int(vectors.shape[1]),
            "count": len(texts),
            "model": self.config["model"],
            "cut": [i for i, (_, cut) in enumerate(rows) if cut],
        }
        if format == "json":
            return Result(output | {"vectors": vectors.tolist()})
        return Result(output, vectors.astype("<f4", copy=False).tobytes(), CONTENT_TYPE)

    def _rows(self, texts: Sequence[str]) -> list[tuple[Array, bool]]:
        """Vector, and whether the text was cut, of each."""
        found = {text: self._kept[text] for text in texts if text in self._kept}
        new = list(dict.fromkeys(text for text in texts if text not in found))
        if new:
            found |= zip(new, self._embedded(new), strict=True)
        self._keep({text: found[text] for text in dict.fromkeys(texts)})
        return [found[text] for text in texts]

    def _embedded(self, texts: list[str]) -> list[tuple[Array, bool]]:
        assert self._model is not None, "start was not called"
        encoded = self._tokenizer.encode_batch(texts)
        # Threads of a product this small wait for each other longer than they work: on a machine
        # with other load 60 times as long.
        with self._threads.limit(limits=1, user_api="blas"):
            vectors = self._model.embed([one.ids for one in encoded])
        return [(v, bool(e.overflowing)) for v, e in zip(vectors, encoded, strict=True)]

    def _keep(self, rows: dict[str, tuple[Array, bool]]) -> None:
        for text, row in rows.items():
            self._kept[text] = row
            self._kept.move_to_end(text)
        while len(self._kept) > self.config["remembered"]:
            self._kept.popitem(last=False)
