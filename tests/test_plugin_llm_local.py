"""llm-local with its real model: streaming, limits, constrained JSON, refusals, cancelling."""

from __future__ import annotations

import json
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loom_sdk import Call, Item, Plugin, Result, models
from loom_sdk.context_builder import estimate
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    ModelMissing,
)
from loom_sdk.toolloop import tool_specs
from tests.support import ROOT, FakePort, driver_of, load_plugin, run_capability, start

pytest.importorskip("xllamacpp")
_TABLES = tomllib.loads((ROOT / "plugins/wasm/calculator/plugin.toml").read_text())["capability"]
CALCULATOR = tool_specs([{**table, "input_schema": table["input"]} for table in _TABLES])
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llm() -> Iterator[Plugin]:
    plugin = load_plugin("grpc", "llm-local", temperature=0, context_tokens=1024)
    try:
        start(plugin)
    except ModelMissing as error:
        pytest.skip(str(error))
    yield plugin
    plugin.stop(None)


def chat(llm: Plugin, port: FakePort | None = None, **arguments: Any) -> Result:
    driver = driver_of(llm, port)
    call = Call("llm.chat", {"messages": FRANCE} | arguments, remaining_ms=120_000)
    return driver.invoke(driver.capability("llm.chat"), call)


def test_streamed_deltas_make_up_the_text(llm: Plugin) -> None:
    port = FakePort()
    output = chat(llm, port, max_tokens=12).output
    assert "".join(item.output["delta"] for item in port.items) == output["text"]
    assert len(port.items) > 3
    assert output["model"] == "smollm2-135m-instruct"
    assert output["usage"]["output_tokens"] == 12
    assert output["usage"]["input_tokens"] > 10
    assert [span.name for span in port.spans] == ["llm.generate"]


def test_stop_text_ends_the_answer_and_is_not_part_of_it(llm: Plugin) -> None:
    whole = chat(llm, max_tokens=12).output["text"]
    word = whole.split()[2]
    assert chat(llm, max_tokens=12, stop=[word]).output["text"] == whole.partition(word)[0]


def test_response_schema_constrains_the_answer(llm: Plugin) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = json.loads(chat(llm, response_schema=schema, max_tokens=32).output["text"])
    assert answer["city"] in ("Paris", "Rome")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "exceeds the available"),
        ({"response_schema": {"type": "frobnicate"}}, "frobnicate"),
    ],
)
def test_unusable_requests_are_invalid_arguments(
    llm: Plugin, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message):
        chat(llm, **arguments)
    assert chat(llm, max_tokens=1).output["usage"]["output_tokens"] == 1


def test_a_tool_is_asked_for_in_the_shape_of_native_calls(llm: Plugin) -> None:
    port = FakePort()
    question = [{"role": "user", "content": "What is 12 times 9?"}]
    output = chat(llm, port, messages=question, tools=CALCULATOR).output
    (call,) = output["tool_calls"]
    assert (call["name"], output["text"]) == ("calculator.evaluate", "")
    assert call["arguments"] == {"expression": "12 times 9"}
    assert output["finish_reason"] == "tool_calls"
    assert port.items == []
    result = {"role": "tool", "tool_call_id": call["id"], "content": "The tool says:\n108"}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    turn = [*question, asked, result]
    output = chat(llm, port, messages=turn, tools=CALCULATOR, max_tokens=16).output
    assert output["tool_calls"] == []
    assert "108" in output["text"]
    assert "".join(item.output["delta"] for item in port.items) == output["text"]


def test_where_no_tool_fits_the_model_answers_in_words_and_both_are_counted(llm: Plugin) -> None:
    plain = chat(llm, max_tokens=4).output
    output = chat(llm, tools=CALCULATOR, max_tokens=4).output
    assert (output["text"], output["tool_calls"]) == (plain["text"], [])
    assert output["finish_reason"] == "length"
    assert output["usage"]["input_tokens"] > plain["usage"]["input_tokens"] + 100


def test_cancelling_stops_the_model(llm: Plugin) -> None:
    class Cancelled(FakePort):
        def emit(self, call_id: str, item: Item) -> None:
            super().emit(call_id, item)
            if len(self.items) == 3:
                raise DeadlineExceeded("the host cancelled this call")

    port = Cancelled()
    began = time.process_time()  # all 900 tokens would take 30 s of it
    with pytest.raises(DeadlineExceeded, match="cancelled"):
        chat(llm, port, messages=[{"role": "user", "content": "Tell a story."}], max_tokens=900)
    assert len(port.items) == 3
    assert time.process_time() - began < 5


def test_the_servers_own_port_is_closed_to_strangers(llm: Plugin) -> None:
    address = vars(llm)["_server"].listening_address
    body = json.dumps({"messages": FRANCE}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, headers)
    with pytest.raises(urllib.error.HTTPError, match="401") as raised:
        urllib.request.urlopen(request, timeout=5)
    raised.value.close()


def test_missing_model_names_the_pull_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOM_MODELS", str(tmp_path))
    plugin = load_plugin("grpc", "llm-local")
    with pytest.raises(ModelMissing, match="loom models pull smollm2-135m-instruct"):
        start(plugin)
    (models.models_dir() / "smollm2-135m-instruct").mkdir()
    with pytest.raises(ModelMissing, match="loom models pull smollm2-135m-instruct"):
        start(plugin)


def test_a_stopped_plugin_says_so() -> None:
    plugin = load_plugin("grpc", "llm-local")
    assert plugin.health() == "no model is loaded"
    with pytest.raises(LoomError, match="no model loaded"):
        chat(plugin)


def test_tokens_are_counted_as_the_model_itself_counts_them(llm: Plugin) -> None:
    texts = ["", "France", "What is the capital of France?", "日本"]
    counts = run_capability(llm, "llm.count_tokens", {"texts": texts}).output["counts"]
    assert counts[:3] == [0, 1, 7]
    messages = [{"role": "user", "content": texts[2]}]
    whole = chat(llm, messages=messages, max_tokens=1).output["usage"]["input_tokens"]
    longer = [{"role": "user", "content": f"{texts[2]} {texts[2]}"}]
    again = chat(llm, messages=longer, max_tokens=1).output["usage"]["input_tokens"]
    assert again - whole == 7
    assert estimate(texts[3]) >= counts[3] > 0


def test_to_stop_it_ends_the_answer_that_is_being_written() -> None:
    """A thread that is left in llama.cpp would end the host's process with an abort."""
    plugin = load_plugin("grpc", "llm-local", temperature=0)
    try:
        start(plugin)
    except ModelMissing as error:
        pytest.skip(str(error))
    ended: list[BaseException] = []
    port = FakePort()

    def write() -> None:
        many = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
        with pytest.raises(ActionFailed) as failed:
            chat(plugin, port, max_tokens=1000, response_schema=many)
        ended.append(failed.value)

    writer = threading.Thread(target=write)
    writer.start()
    while not port.items:
        time.sleep(0.01)
    plugin.stop(None)
    writer.join(1)
    assert [getattr(error, "code", "") for error in ended] == ["LLM_STOPPED"]
    assert len(port.items) < 400
