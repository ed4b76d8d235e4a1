"""The tool that runs a model's Python: its answers, its limits, and when it refuses to start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loom_host import Host, load_settings
from loom_sdk import Call
from loom_sdk.errors import ActionFailed, PluginLoadError

from .hosting import host_tables, until
from .support import FakePort, driver_of, load_plugin

LOOSE = {"allow_unsandboxed": True, "numpy": False}


class Python:
    """The plugin in this process: its runners are real, the sandbox around them is not there."""

    def __init__(self, **config: Any) -> None:
        self.plugin = load_plugin("grpc", "python-eval", **(LOOSE | config))
        self.driver = driver_of(self.plugin, FakePort())

    async def __aenter__(self) -> Python:
        await self.lifecycle("start")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lifecycle("stop")

    async def lifecycle(self, name: str) -> None:
        method, ctx, _ = self.driver.lifecycle(name)
        await method(ctx)

    async def __call__(self, code: str, remaining_ms: int = 10_000) -> Any:
        call = Call("python.eval", {"code": code}, remaining_ms=remaining_ms)
        return (await self.driver.ainvoke(self.driver.capability("python.eval"), call)).output

    async def fails(self, code: str) -> ActionFailed:
        with pytest.raises(ActionFailed) as raised:
            await self(code)
        return raised.value


@pytest.fixture
async def python() -> AsyncIterator[Python]:
    async with Python() as running:
        yield running


async def test_the_last_expression_is_the_value(python: Python) -> None:
    answer = await python("a, b = 0, 1\nfor _ in range(20):\n    a, b = b, a + b\na")
    assert answer == {"value": 6765, "repr": "6765", "speech": "The result is 6765."}
    assert await python("x = 1") == {}
    assert (await python("{'a': [1, None]}"))["value"] == {"a": [1, None]}


async def test_a_value_without_json_is_shown_as_its_repr(python: Python) -> None:
    assert await python("1j") == {"repr": "1j", "speech": "The result is 1j."}
    assert "value" not in await python("float('nan')")
    assert (await python("'ä' * 3"))["value"] == "äää"


async def test_what_is_printed_is_captured_from_every_writer(python: Python) -> None:
    code = (
        "import os, sys\nprint('one', flush=True)\nos.write(1, b'two\\n')\nos.system('echo three')"
    )
    assert (await python(code))["stdout"] == "one\ntwo\nthree\n"
    assert (await python("print('äö')"))["speech"] == "The result is äö."


async def test_numpy_is_there_and_its_values_are_json() -> None:
    pytest.importorskip("numpy")
    async with Python(numpy=True) as python:
        assert (await python("import numpy as np\nnp.arange(4) * 2"))["value"] == [0, 2, 4, 6]
        assert (await python("import numpy as np\nnp.float32(1.5)"))["value"] == 1.5


async def test_nothing_is_kept_between_runs(python: Python) -> None:
    await python("import builtins\nkept = 1\nbuiltins.kept = 2")
    assert (await python.fails("kept")).message == "NameError: name 'kept' is not defined (line 1)"


async def test_an_error_names_its_line(python: Python) -> None:
    error = await python.fails("print('so far')\ndef f(x):\n    return 1 / x\n\nf(0)")
    assert (error.code, error.message) == (
        "PYTHON_ERROR", "ZeroDivisionError: division by zero (line 3)"
    )  # fmt: skip
    assert error.data["stdout"] == "so far\n"
    assert "line 5, in <module>" in error.data["traceback"]
    assert "return 1 / x" in error.data["traceback"]
    assert "python_eval_runner" not in error.data["traceback"]
    assert (await python.fails("1 +\n")).message == "SyntaxError: invalid syntax (line 1)"
    assert (await python.fails("import sys\nsys.exit('no')")).message == "SystemExit: no (line 2)"
    assert (await python.fails("'\\ud800' + 1")).code == "PYTHON_ERROR"


async def test_a_loop_without_end_meets_the_time_limit() -> None:
    async with Python(seconds=0.5) as python:
        began = time.monotonic()
        error = await python.fails("print('in it', flush=True)\nwhile True: pass")
        assert time.monotonic() - began < 2
        assert (error.code, error.data) == ("TIME_LIMIT", {"stdout": "in it\n"})
        assert (await python("1"))["value"] == 1


async def test_what_the_code_starts_ends_with_it() -> None:
    code = "import subprocess\nsubprocess.Popen(['sleep', '60']).pid"
    async with Python() as python:
        pid = (await python(code))["value"]
        await until(lambda: not psutil.pid_exists(pid))


async def test_memory_is_bounded_and_says_where(python: Python) -> None:
    error = await python.fails("a = []\nwhile True:\n    a.append('x' * 10_000_000)")
    assert error.message.startswith("MemoryError")
    assert error.message.endswith("(line 3)")


async def test_output_is_cut_not_collected() -> None:
    async with Python(output_chars=100, seconds=10) as python:
        answer = await python("for _ in range(200_000): print('x' * 100)")
        assert (len(answer["stdout"]), answer["cut"]) == (100, True)
        answer = await python("'y' * 10_000_000")
        assert (len(answer["repr"]), answer["cut"], "value" in answer) == (100, True, False)


async def test_a_crash_of_the_interpreter_is_told(python: Python) -> None:
    error = await python.fails("import ctypes\nprint('last', flush=True)\nctypes.string_at(0)")
    assert (error.code, error.data["stdout"][:5]) == ("PYTHON_CRASHED", "last\n")
    assert (await python("1"))["value"] == 1


async def test_a_cancelled_call_ends_its_process(python: Python, tmp_path: Path) -> None:
    told = str(tmp_path / "p")
    code = f"import os, time\nopen({told!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    call = asyncio.create_task(python(code))
    await until(lambda: (tmp_path / "p").exists() and (tmp_path / "p").read_text())
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert not psutil.pid_exists(int((tmp_path / "p").read_text()))


async def test_without_a_sandbox_it_refuses_to_start() -> None:
    with pytest.raises(PluginLoadError) as raised:
        await Python(allow_unsandboxed=False).lifecycle("start")
    assert "LOOM_SANDBOX names no layer" in raised.value.message
    assert "it can read /etc/" in raised.value.message
    assert 'sandbox = "strict"' in raised.value.message


async def test_a_claim_alone_does_not_make_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_SANDBOX", "landlock,seccomp")
    with pytest.raises(PluginLoadError, match="it can read"):
        await Python(allow_unsandboxed=False).lifecycle("start")


def _hosted(folder: Path, **table: Any) -> Host:
    tables = host_tables(folder)
    allow = {"provide": ["python.eval"]}
    tables["plugins"] = {"python-eval": {"allow": allow} | table}
    return Host(load_settings(None, tables))


async def test_the_host_tells_why_it_did_not_start(tmp_path: Path) -> None:
    async with _hosted(tmp_path, sandbox="none") as host:
        handle = host.plugins["python-eval"]
        await until(lambda: handle.state == "failed", 20)
        assert "no strict sandbox" in handle.reason


async def test_in_the_strict_sandbox_it_runs_and_reaches_nothing(tmp_path: Path) -> None:
    async with _hosted(tmp_path) as host:
        assert host.plugins["python-eval"].spec.sandbox == "strict"
        handle = host.plugins["python-eval"]
        await until(lambda: handle.state in ("ready", "failed"), 20)
        if handle.state == "failed" and "no strict sandbox" in handle.reason:
            pytest.skip(f"a layer is missing here: {handle.reason}")
        assert handle.state == "ready", handle.explain()
        answer = await host.invoke("python.eval", {"code": "import numpy as np\nnp.ones(3).sum()"})
        assert answer.output["value"] == 3.0
        for code in ("open('/etc/shadow').read()", "import socket\nsocket.socket()",
                     "open('/work', 'w')", f"open({str(Path(__file__))!r}).read()"):  # fmt: skip
            with pytest.raises(ActionFailed, match="Error"):
                await host.invoke("python.eval", {"code": code})
