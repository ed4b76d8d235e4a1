"""A GGUF language model in this process: llama.cpp through `xllamacpp`.

The server object also listens on a loopback port that cannot be switched off; a random key that
nobody is told closes it.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import urllib.request
from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, Result, capability, models, toolless
from loom_sdk.engines import Message, ToolCall, ToolSpec
from loom_sdk.environment import kept
from loom_sdk.errors import ActionFailed, DeadlineExceeded, InvalidArguments, ModelMissing

PROMPT_CACHE_MIB = 256
"""For prompts that took turns in the one slot: about 23 kB a token of SmolLM2-135M."""


class LocalLlm(Plugin):
    """One model, one answer at a time; the cache of the last prompt is kept between calls."""

    def __init__(self) -> None:
        super().__init__()
        self._server: Any = None
        self._model = ""
        self._key = secrets.token_hex(32)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self, ctx: Context) -> None:
        """Load the model.

        Raises:
            ModelMissing: the GGUF file or `xllamacpp` is not installed; names the command.
        """
        path = model_file(self.config["model"])
        try:
            # libgomp reads these when it loads. Its spinning threads make an answer up to 20
            # times slower as soon as another process wants the same cores.
            with kept(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0"):
                import xllamacpp
        except ImportError as error:
            raise ModelMissing(
                "llm-local needs xllamacpp: pip install 'loom-host[local-llm]'"
            ) from error
        self._model = Path(self.config["model"]).stem
        self._stopping.clear()
        self._server = xllamacpp.Server(self._parameters(xllamacpp, path))
        ctx.log("model loaded", model=self._model, path=path)

    def _parameters(self, xllamacpp: Any, path: Path) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = self.config["context_tokens"]
        parameters.n_parallel = 1
        parameters.cache_ram_mib = PROMPT_CACHE_MIB
        parameters.verbosity = 0
        parameters.api_keys = [self._key]
        for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
            cpu.n_threads = self.config["threads"] or os.cpu_count() or 1
            cpu.poll = 0
        return parameters

    def stop(self, ctx: Context) -> None:
        """End the answer that is being written: a thread that is still in llama.cpp when the
        process ends takes it down with an abort."""
        self._stopping.set()
        with self._lock:
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
        tools: list[ToolSpec] | None = None,
        tool_choice: str | None = None,
    ) -> Result:
        """Answer a conversation, streaming text as it is written, or ask for tools.

        Args:
            messages: the conversation so far
            max_tokens: limit of the answer
            temperature: 0 always takes the likeliest token
            stop: texts that end the answer
            response_schema: JSON Schema that the answer must fit
            tools: what the model may ask to be called
            tool_choice: auto, none, required, or the name of one of the tools

        Returns:
            {text, tool_calls, model, usage, finish_reason}; items before it are {delta}.

        Raises:
            InvalidArguments: no messages, too many, an unusable schema or tool_choice.
            ActionFailed: LLM_TOOL_CHOICE, LLM_STOPPED or LLM_FAILED.
            DeadlineExceeded: the call's time ended while the model was writing.
        """
        if not messages:
            raise InvalidArguments("llm.chat needs at least one message")
        choice = toolless.choice(messages, tools, tool_choice, self.config["tool_rounds"])
        request = {
            "messages": toolless.flattened(messages),
            "max_tokens": max_tokens or self.config["max_output_tokens"],
            "temperature": self.config["temperature"] if temperature is None else temperature,
            **({"stop": stop} if stop else {}),
            **_constraint(response_schema),
        }
        return self._serve(ctx, choice, request)

    def _serve(
        self, ctx: Context, choice: toolless.Choice | None, request: dict[str, Any]
    ) -> Result:
        """The tool that the model chooses, where it may; else its answer."""
        with self._lock:
            asked = []
            if choice is not None:
                asked = [self._choose(ctx, choice)]
                if calls := choice.calls(asked[0].text):
                    return self._result("", calls, *asked)
            answer = self._write(ctx, _Answer(ctx, self._stopping), request)
        return self._result(answer.text, [], answer, *asked)

    @capability("llm.count_tokens", effects="none")
    def count_tokens(self, ctx: Context, texts: list[str]) -> dict[str, Any]:
        """How many tokens each text has for this model, without the marks of its chat template.

        Args:
            texts: what to count; empty texts have none

        Raises:
            ActionFailed: LLM_STOPPED, or LLM_FAILED where the tokenizer does not answer.
        """
        server = self._server  # which may stop meanwhile
        if server is None:
            raise ActionFailed("llm-local has no model loaded: restart it", code="LLM_STOPPED")
        address = server.listening_address
        return {"counts": [self._tokens(ctx, address, text) if text else 0 for text in texts]}

    def _tokens(self, ctx: Context, address: str, text: str) -> int:
        """By llama.cpp's own HTTP server: xllamacpp has no function for it."""
        request = urllib.request.Request(
            f"{address}/tokenize",
            json.dumps({"content": text}).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=max(ctx.remaining_ms(), 1) / 1000) as answer:
                return len(json.load(answer)["tokens"])
        except (OSError, ValueError, KeyError) as error:
            raise ActionFailed(f"the tokenizer failed: {error}", code="LLM_FAILED") from error

    def _choose(self, ctx: Context, choice: toolless.Choice) -> _Answer:
        request = {
            "messages": choice.messages,
            "max_tokens": self.config["tool_tokens"],
            "temperature": 0.0,
            **_constraint(choice.response_schema),
        }
        return self._write(ctx, _Answer(ctx, self._stopping, quiet=True), request)

    def _write(self, ctx: Context, answer: _Answer, request: dict[str, Any]) -> _Answer:
        request |= {
            "seed": self.config["seed"],
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._server is None:
            raise ActionFailed("llm-local has no model loaded: restart it", code="LLM_STOPPED")
        with ctx.span("llm.generate", model=self._model):
            answer.run(self._server, request)
        return answer

    def _result(self, text: str, calls: list[ToolCall], *answers: _Answer) -> Result:
        """With the tokens of all answers; it costs nothing but the machine's own time."""
        given, written = (
            sum(int(answer.usage.get(key, 0)) for answer in answers)
            for key in ("prompt_tokens", "completion_tokens")
        )
        return Result(
            {
                "text": text,
                "tool_calls": calls,
                "model": self._model,
                "usage": {"input_tokens": given, "output_tokens": written, "cost": 0.0},
                "finish_reason": "tool_calls" if calls else answers[0].finish or "stop",
            }
        )


class _Answer:
    """Collects one streamed answer. What its callback returns tells llama.cpp whether to stop."""

    def __init__(self, ctx: Context, stopping: threading.Event, quiet: bool = False) -> None:
        self._ctx, self._stopping, self._quiet = ctx, stopping, quiet
        self._parts: list[str] = []
        self.finish = ""
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
                if not self._quiet:
                    self._ctx.emit({"delta": delta})
            self.finish = choice.get("finish_reason") or self.finish
        if self._stopping.is_set():
            raise ActionFailed("llm-local was stopped: ask again", code="LLM_STOPPED")
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


def _constraint(schema: dict[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {}
    named = {"name": "answer", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def model_file(name: str) -> Path:
    """The GGUF file of a pulled model. Raises ModelMissing naming the pull command."""
    path = models.find(name)
    if path.is_dir():
        path = path / "model.gguf"
    if not path.is_file():
        raise ModelMissing(f"{path} is missing: run `loom models pull {name}`")
    return path
