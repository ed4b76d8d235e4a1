"""A GGUF language model in this process: llama.cpp through `xllamacpp`.

The server object also listens on a loopback port that cannot be switched off; a random key that
nobody is told closes it.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, Result, capability, models
from loom_sdk.engines import Message
from loom_sdk.errors import ActionFailed, DeadlineExceeded, InvalidArguments, ModelMissing

PROMPT_CACHE_MIB = 256
"""For prompts that took turns in the one slot: about 23 kB a token of SmolLM2-135M."""


class LocalLlm(Plugin):
    """One model, one answer at a time; the cache of the last prompt is kept between calls."""

    def __init__(self) -> None:
        super().__init__()
        self._server: Any = None
        self._model = ""
        self._lock = threading.Lock()

    def start(self, ctx: Context) -> None:
        """Load the model.

        Raises:
            ModelMissing: the GGUF file or `xllamacpp` is not installed; names the command.
        """
        path = model_file(self.config["model"])
        # libgomp reads it when it loads. Its spinning threads make an answer up to 20 times
        # slower as soon as another process wants the same cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        try:
            import xllamacpp
        except ImportError as error:
            raise ModelMissing(
                "llm-local needs xllamacpp: pip install 'loom-host[local-llm]'"
            ) from error
        self._model = Path(self.config["model"]).stem
        self._server = xllamacpp.Server(self._parameters(xllamacpp, path))
        ctx.log("model loaded", model=self._model, path=path)

    def _parameters(self, xllamacpp: Any, path: Path) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = self.config["context_tokens"]
        parameters.n_parallel = 1
        parameters.cache_ram_mib = PROMPT_CACHE_MIB
        parameters.verbosity = 0
        parameters.api_keys = [secrets.token_hex(32)]
        for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
            cpu.n_threads = self.config["threads"] or os.cpu_count() or 1
            cpu.poll = 0
        return parameters

    def stop(self, ctx: Context) -> None:
        self._server = None

    def health(self) -> str:
        return "" if self._server is not None else "no model is loaded"

    @capability("llm.chat", effects="none")
    def chat(
        self,
        ctx: Context,
        messages: list[Message],
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: list[str] | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> Result:
        """Answer a conversation, streaming text as it is written.

        Args:
            messages: the conversation so far; role is system, user or assistant
            max_tokens: limit of the answer
            temperature: 0 always takes the likeliest token
            stop: texts that end the answer
            response_schema: JSON Schema that the answer must fit

        Returns:
            {text, model, usage: {prompt_tokens, completion_tokens}}; items before it are {delta}.

        Raises:
            InvalidArguments: no messages, too many for the context, or an unusable schema.
            DeadlineExceeded: the call's time ended while the model was writing.
        """
        if not messages:
            raise InvalidArguments("llm.chat needs at least one message")
        request: dict[str, Any] = {
            "messages": messages,
            "max_tokens": max_tokens or self.config["max_output_tokens"],
            "temperature": self.config["temperature"] if temperature is None else temperature,
        }
        if stop:
            request["stop"] = stop
        if response_schema is not None:
            schema = {"name": "answer", "schema": response_schema}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return self._answer(ctx, request)

    def _answer(self, ctx: Context, request: dict[str, Any]) -> Result:
        request |= {
            "seed": self.config["seed"],
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = _Answer(ctx)
        with self._lock:
            if self._server is None:
                raise ActionFailed("llm-local has no model loaded: restart it", code="LLM_STOPPED")
            with ctx.span("llm.generate", model=self._model):
                answer.run(self._server, request)
        usage = {key: answer.usage.get(key, 0) for key in ("prompt_tokens", "completion_tokens")}
        return Result({"text": answer.text, "model": self._model, "usage": usage})


class _Answer:
    """Collects one streamed answer. What its callback returns tells llama.cpp whether to stop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._parts: list[str] = []
        self._failure: BaseException | None = None
        self._refusal: Any = None
        self.usage: dict[str, int] = {}

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def run(self, server: Any, request: dict[str, Any]) -> None:
        """Blocks until the answer is complete or refused; raises what went wrong."""
        try:
            returned = server.handle_chat_completions(request, self.receive)
        except ValueError as error:  # a schema that has no grammar, a template that fails
            raise InvalidArguments(f"the model refused the request: {error}") from error
        self._check(returned)

    def receive(self, chunk: Any) -> bool:
        """An exception must not unwind through llama.cpp: it is kept for `run`."""
        try:
            return self._take(chunk)
        except BaseException as failure:
            self._failure = failure
            return True

    def _take(self, chunk: Any) -> bool:
        if "choices" not in chunk:
            self._refusal = chunk
            return True
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            if delta := choice["delta"].get("content"):
                self._parts.append(delta)
                self._ctx.emit({"delta": delta})
        if self._ctx.remaining_ms() > 0:
            return False
        raise DeadlineExceeded("the time ended while the model was writing")

    def _check(self, returned: Any) -> None:
        if self._failure is not None:
            raise self._failure
        refusal = self._refusal or (returned if isinstance(returned, dict) else None)
        if refusal is None:
            return
        error = refusal.get("error", refusal)
        message = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        code = error.get("code", refusal.get("code", 0)) if isinstance(error, dict) else 0
        if code == 400:
            raise InvalidArguments(f"the model refused the request: {message}")
        raise ActionFailed(f"the model failed: {message}", code="LLM_FAILED")


def model_file(name: str) -> Path:
    """The GGUF file of a pulled model. Raises ModelMissing naming the pull command."""
    path = models.find(name)
    if path.is_dir():
        path = path / "model.gguf"
    if not path.is_file():
        raise ModelMissing(f"{path} is missing: run `loom models pull {name}`")
    return path
