"""`loom`: exit codes, what goes to stdout and to stderr, and one real host to talk to."""

from __future__ import annotations

import argparse
import asyncio
import ctypes.util
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.assembly import make_handle
from loom_host.cli import calls, check, common, demo, show
from loom_host.cli import main as cli
from loom_host.config import parse_settings
from loom_host.control import ControlServer, ask, socket_path
from loom_host.discovery import code_hash, find_manifests, first_party_root
from loom_host.handle import PluginHandle
from loom_host.turn import Turn
from loom_sdk.errors import InvalidArguments, QuotaExceeded

from .hosting import PLUGINS

CONFIG = """
[host]
plugin_paths = ["{plugins}"]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"
stop_grace_ms = 500

[telemetry]
log_level = "error"

[plugins.lab]
trusted = true
code = "{lab}"
allow = {{ provide = ["*"], subscribe = ["notes.*", "anotes"], publish = ["aecho"] }}

[plugins.sulky]
trusted = true
code = "{sulky}"
"""


def write_config(folder: Path, extra: str = "") -> Path:
    path = folder / "loom.toml"
    hashes = {name: code_hash(PLUGINS / name) for name in ("lab", "sulky")}
    path.write_text(CONFIG.format(plugins=PLUGINS, **hashes) + extra)
    return path


@dataclass
class Loom:
    """The command line in this process, with one config file."""

    config: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, code: int = 0) -> str:
        """Standard output; standard error is in `err`."""
        given = cli.main(["-c", str(self.config), *words])
        captured = self.capsys.readouterr()
        self.err = captured.err
        assert "Traceback" not in captured.err
        assert given == code, captured.err
        return captured.out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A real `loom run`, as its config file and process id."""
    config = write_config(tmp_path_factory.mktemp("host"))
    command = [sys.executable, "-m", "loom_host.cli.main", "-c", str(config), "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("loom runs"):
                break
        yield config, process.pid
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(10) == 0
        assert "stopping" in rest
        assert "Traceback" not in rest
    assert not socket_path(config.parent / "run").exists()


@pytest.fixture
def loom(running: tuple[Path, int], capsys: pytest.CaptureFixture[str]) -> Loom:
    return Loom(running[0], capsys)


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Loom:
    return Loom(write_config(tmp_path), capsys)


# -- talking to a running host


def test_ps(loom: Loom) -> None:
    table = loom("ps")
    assert table.splitlines()[0].split()[:3] == ["NAME", "TIER", "STATE"]
    assert "unenforced: native code shares the host's process: memory, cpu" in table
    assert "sulky: sulky did not start: ImportError" in table
    assert "WASM" not in table
    rows = {row["name"]: row for row in loom.json("ps")}
    assert (rows["lab"]["state"], rows["sulky"]["state"]) == ("ready", "failed")


def test_call(loom: Loom, tmp_path: Path) -> None:
    assert json.loads(loom("call", "lab.greet", "name=bo")) == {"greeting": "hi bo"}
    answer = loom.json("call", "lab.greet", '{"name": "bo"}')
    assert (answer["output"], answer["provider"]) == ({"greeting": "hi bo"}, "lab")
    assert loom("call", "lab.count", "to=2").splitlines()[:2] == ["0", "1"]
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"abc")
    loom("call", "lab.reverse", "--payload", str(source), "--out", str(target))
    assert target.read_bytes() == b"cba"
    assert f"wrote 3 bytes to {target}" in loom.err
    loom("call", "lab.count", "to=3", "--out", str(target))  # which streams it
    assert target.read_bytes() == bytes([0, 1, 2])
    assert json.loads(loom("call", "lab.greet", "--timeout-ms", "9000", "name=bo"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lab.greet",), '"name" is a required property'),
        (("lab.nothing",), "nobody offers 'lab.nothing'"),
        (("lab.greet", "name=x", "--payload", "/no/such/file"), "/no/such/file: No such file"),
        (("lab.nap", "seconds=5", "--timeout-ms", "30"), "did not end within"),
        (("lab.fail", "how=raise"), "lab raised RuntimeError: the lab is closed"),
        (("lab.fail", "how=typed"), "loom: NO_PAPER: out of paper\n"),
        (("lab.fail", "how=terminal"), "loom: NO\\x1b]0;\\x07: no\\x1b[2J\npaper\n"),
    ],
)
def test_what_fails_is_told_on_stderr(loom: Loom, words: tuple[str, ...], told: str) -> None:
    assert loom("call", *words, code=1) == ""
    assert loom.err.startswith("loom: ")
    assert told in loom.err


def test_what_fails_is_data_where_data_is_asked_for(loom: Loom) -> None:
    answer = json.loads(loom("call", "lab.fail", "how=typed", "--json", code=1))
    assert answer == {"error": {"code": "NO_PAPER", "message": "out of paper"}}
    answer = json.loads(loom("call", "lab.nothing", "--json", code=1))
    assert answer["error"]["code"] == "CAPABILITY_NOT_FOUND"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("call", "lab.greet", "name"), "write arguments as key=value"),
        (("call", "lab.greet", "{name"), "the arguments are not JSON"),
        (("publish", "anotes", "--metadata", "a"), "write it as key=value"),
    ],
)
def test_malformed_arguments_are_wrong_usage(loom: Loom, words: tuple[str, ...], told: str) -> None:
    assert loom(*words, code=2) == ""
    assert loom.err.startswith("loom: ")
    assert told in loom.err


def test_words_too_many_are_told_with_the_usage_of_their_own_command(
    loom: Loom, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        loom("publish", "anotes", "greeting", "hello")
    told = capsys.readouterr().err
    assert told.startswith("usage: loom publish ")
    assert "[--type TYPE]" in told
    assert "loom publish: error: unrecognized arguments: hello" in told


def test_publish_and_events(loom: Loom) -> None:
    heard: list[str] = []
    command = [
        sys.executable, "-m", "loom_host.cli.main", "-c", str(loom.config),
        "events", "aecho", "--count", "2", "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:

        def following() -> bool:
            names = [row["name"] for row in loom.json("stats")["subscriptions"]]
            return "cli" in names

        wait_for(following)
        said = loom("publish", "anotes", "--type", "one", "--metadata", "a=1")
        assert said == "delivered to 1 subscription(s)\n"
        assert loom.json("publish", "anotes", "text", "--type", "two") == {"delivered": 1}
        heard = follower.communicate(timeout=10)[0].splitlines()
        assert follower.returncode == 0
    assert [json.loads(line)["type"] for line in heard] == ["one", "two"]


def test_events_for_people(loom: Loom) -> None:
    timer = threading.Timer(0.3, publish_one, [loom.config])
    timer.start()
    line = loom("events", "anotes", "--count", "1")
    timer.join()
    assert line == "anotes  x  from cli  2 B  a=1\n"


def publish_one(config: Path) -> None:
    async def publish() -> None:
        request: dict[str, Any] = {"op": "publish", "topic": "anotes", "type": "x"}
        request |= {"payload": "hi", "metadata": {"a": "1"}}
        async for _ in ask(config.parent / "run", request):
            return

    asyncio.run(publish())


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_wrong_topic_is_told(loom: Loom) -> None:
    loom("publish", "a..b", code=1)
    assert "'a..b' is not a topic" in loom.err
    loom("events", ">.a", code=1)
    assert "is not a topic pattern" in loom.err


def test_why_denied(loom: Loom) -> None:
    loom("publish", "notes.a")  # its answer goes to a topic that is not granted
    wait_for(lambda: loom.json("why-denied"))
    text = loom("why-denied")
    assert "lab: publish 'echo'" in text
    assert "to allow it, in place of the allow that is there:\n          [plugins.lab]\n" in text
    assert 'publish = ["aecho", "echo"] }' in text
    rows = loom.json("why-denied")
    assert {"plugin", "kind", "value", "line", "time"} == set(rows[0])


def test_stats(loom: Loom) -> None:
    loom("publish", "anotes")
    text = loom("stats")
    assert "TOPIC" in text
    assert "anotes" in text
    assert "lab:anotes" in text


def test_trace(loom: Loom) -> None:
    loom("call", "lab.spanned")
    wait_for(lambda: any(row["name"] == "inner" for row in loom.json("trace", "last")))
    text = loom("trace", "last", "--width", "80")
    assert "invoke lab.spanned" in text
    assert " ms" in text


def test_a_second_host_is_refused_before_any_plugin_starts(loom: Loom, tmp_path: Path) -> None:
    runtime = f'runtime_dir = "{loom.config.parent / "run"}"'
    second = write_config(tmp_path, sleeper(tmp_path))
    second.write_text(second.read_text().replace('runtime_dir = "run"', runtime))
    loom.config = second
    loom("run", code=1)
    assert "a host already runs at" in loom.err
    assert not (tmp_path / "began").exists()


def test_the_real_host_is_another_process(running: tuple[Path, int], loom: Loom) -> None:
    assert json.loads(loom("call", "lab.block", "seconds=0")) == running[1] != os.getpid()


# -- without one


def test_without_a_host_the_way_to_start_one_is_told(alone: Loom) -> None:
    for words in (("ps",), ("why-denied",), ("stats",), ("trace",), ("publish", "a"), ("events",)):
        alone(*words, code=1)
        assert "start one with `loom run`" in alone.err


def test_a_call_starts_a_host_for_itself(alone: Loom) -> None:
    assert json.loads(alone("call", "lab.greet", "name=bo")) == {"greeting": "hi bo"}
    (alone.config.parent / "run").mkdir()
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path(alone.config.parent / "run")))
    assert json.loads(alone("call", "lab.count", "to=0")) == {"counted": 0}


def test_run_serves_until_it_is_stopped(alone: Loom) -> None:
    async def stop() -> None:
        async for _ in ask(alone.config.parent / "run", {"op": "stop"}):
            return

    def later() -> None:
        wait_for(socket_path(alone.config.parent / "run").exists)
        asyncio.run(stop())

    stopper = threading.Thread(target=later)
    stopper.start()
    alone("run")
    stopper.join()
    assert "loom runs 2 plugins: lab (native, ready), sulky (native, failed)" in alone.err
    assert alone.err.endswith("stopping\n")


SLEEPER = """
import time
from pathlib import Path
from loom_sdk import Plugin

class Sleeper(Plugin):
    def start(self, ctx):
        Path({began!r}).touch()
        time.sleep(60)
"""


def sleeper(folder: Path) -> str:
    """Settings of a plugin that touches `folder/began` and then is at its start for a minute."""
    home = folder / "plugins" / "sleeper"
    home.mkdir(parents=True)
    (home / "sleeper.py").write_text(SLEEPER.format(began=str(folder / "began")))
    head = 'id = "test/sleeper"\nversion = "1"\napi = "1"\ntype = "tool"\ntier = "native"\n'
    head += 'entry = "sleeper:Sleeper"\ndescription = "Takes a minute to start."\n'
    (home / "plugin.toml").write_text(f"[plugin]\n{head}")
    return f"""
[plugins.sleeper]
trusted = true
code = "{code_hash(home)}"
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_is_stopped_at_once_while_its_plugins_start(tmp_path: Path, number: int) -> None:
    config = write_config(tmp_path, sleeper(tmp_path))
    paths = f'plugin_paths = ["{tmp_path / "plugins"}", '
    config.write_text(config.read_text().replace("plugin_paths = [", paths))
    code, told = interrupted(config, number, (tmp_path / "began").exists)
    assert code == 130
    assert told.endswith("stopping\nstopped before it was ready\n"), told
    assert not socket_path(tmp_path / "run").exists()


def interrupted(config: Path, number: int, condition: Any) -> tuple[int, str]:
    """Exit code and standard error of a `loom run` that is signalled once the condition holds."""
    command = [sys.executable, "-m", "loom_host.cli.entry", "-c", str(config), "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(condition)
            process.send_signal(number)
            told = process.communicate(timeout=8)[1]
        finally:
            process.kill()
    return process.returncode, told


COMPILING = """
import os, subprocess, sys, threading
sleeping = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
inner = "import time; time.sleep(60)"
threads = [threading.Thread(target=subprocess.run, args=([sys.executable, "-c", code],))
           for code in (inner, sleeping.format(inner=inner))]
for thread in threads:
    thread.start()
import asyncio
from loom_host.cli import offspring
while len(list(offspring._below(os.getpid()))) < 3:
    pass
asyncio.run(offspring.end_children())
for thread in threads:
    thread.join()
print(list(offspring._below(os.getpid())))
"""


def test_compilers_and_what_they_started_end_with_an_interrupted_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILING], capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("module", ["loom_host.cli.main", "loom_host.host", "loom_host.control"])
def test_an_interruption_while_the_command_imports_shows_no_traceback(module: str) -> None:
    code = f"""
import signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
from loom_host.cli.entry import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_events_tells_when_the_host_ends(tmp_path: Path, alone: Loom) -> None:
    async def follow() -> int:
        async with Host(load_settings(alone.config)) as host:
            server = ControlServer(host)
            await server.start()
            words = argparse.Namespace(config=alone.config, pattern="anotes", count=1, json=False)
            following = asyncio.create_task(calls.run_events(words))
            async with asyncio.timeout(10):
                while "cli" not in str(host.bus.stats()["subscriptions"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await server.aclose()
            return await following

    assert asyncio.run(follow()) == 1
    assert alone.capsys.readouterr().err.endswith("loom: the host ended: no more events come\n")


def test_run_without_a_control_socket_ends_by_signal(tmp_path: Path, alone: Loom) -> None:
    text = alone.config.read_text().replace("[host]", "[host]\ncontrol = false")
    alone.config.write_text(text)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM])
    timer.start()
    alone("run")
    assert not socket_path(tmp_path / "run").exists()


def test_a_host_that_dies_before_it_answers_is_told(alone: Loom) -> None:
    async def serve() -> None:
        (alone.config.parent / "run").mkdir(exist_ok=True)
        path = str(socket_path(alone.config.parent / "run"))
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
        arguments = argparse.Namespace(config=alone.config)
        with pytest.raises(Exception, match=r"ended before it answered|closed|reset|Broken"):
            await common.ask_once(arguments, {"op": "ps"})
        server.close()

    asyncio.run(serve())


# -- usage and settings


@pytest.mark.parametrize(
    "words",
    [
        [], ["fly"], ["call"], ["plugin"], ["models", "fly"],
        ["events", "--count", "-1"], ["events", "--count=-1"], ["events", "--count", "x"],
        ["demo", "--text", ""], ["demo", "--text", " "], ["demo", "--text", "a", "--wav", "a.wav"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: loom" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[hots]", "did you mean 'host'"),
        ("[plugins.labb]", "did you mean 'lab'"),
        ("[host", "is not TOML"),
        ('[plugins.lab]\ntier = "wasm"', "claims only native"),
        ('[plugins.lab]\nallow = { provide = ["*"] }', 'trusted = true and code = "sha256:'),
    ],
)
def test_wrong_settings_are_told(alone: Loom, content: str, told: str) -> None:
    paths = f'[host]\nplugin_paths = ["{PLUGINS}"]\nruntime_dir = "run"\n'
    alone.config.write_text(content if content.startswith("[ho") else paths + content)
    alone("call", "lab.greet", "name=x", code=1)
    assert told in alone.err


def test_a_missing_file_is_told(alone: Loom) -> None:
    alone.config = alone.config.parent / "other.toml"
    alone("ps", code=1)
    assert "other.toml: No such file" in alone.err


def test_the_file_here_is_the_default(
    alone: Loom, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._config_path(None) == Path("loom.toml")
    (tmp_path / "loom.toml").unlink()
    assert cli._config_path(None) is None
    assert common.settings_of(None).plugins.keys() >= {"voice-agent", "vad"}


def test_interruption_and_broken_pipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def raising(error: BaseException) -> Any:
        def run(arguments: argparse.Namespace) -> int:
            raise error

        return run

    for error, code in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 1), (OSError("x"), 1)):
        monkeypatch.setattr(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115  # it is closed
        monkeypatch.setattr(check, "run", raising(error))
        assert cli.main(["-c", str(write_config(tmp_path)), "check"]) == code
        sys.stderr.close()


# -- check and plugin


def test_check_tells_reach_and_what_is_missing(alone: Loom) -> None:
    text = alone("check", "--explain")
    assert "lab (native)" in text
    assert "    can publish: aecho" in text
    assert "    runs in the host: nothing is isolated" in text
    assert "    asked for, not granted: publish:echo" in text
    assert "note: native: unenforced: memory" in text
    report = alone.json("check")
    assert [plugin["name"] for plugin in report["plugins"]] == ["lab", "sulky"]


def test_check_fails_where_a_plugin_cannot_run(alone: Loom) -> None:
    text = alone.config.read_text().replace("trusted = true", "trusted = false", 1)
    alone.config.write_text(text)
    assert "error: lab: lab may not run in the host" in alone("check", code=1)


def test_check_of_nothing_is_well(alone: Loom) -> None:
    alone.config.write_text("")
    assert alone("check") == "all is well\n"


def test_check_names_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = find_manifests([first_party_root()])

    def handle(name: str) -> PluginHandle:
        return make_handle(name, manifests[name], parse_settings({"plugins": {name: {}}}))

    names = [row[0] for row in check.MODULES] + ["tts-espeak"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    findings = check.machine([handle(name) for name in names])
    assert {finding.subject for finding in findings} >= set(names)
    fixes = " ".join(finding.fix for finding in findings)
    assert "apt install espeak-ng" in fixes
    assert "pip install 'loom-host[voice]'" in fixes
    assert "pip install 'loom-host[local-llm]'" in fixes
    monkeypatch.setattr(sys, "version_info", (3, 12))
    told = {f.subject: f for f in check.machine([handle("wake-openwakeword")])}
    assert "no release for Python 3.12" in told["wake-openwakeword"].message
    assert told["wake-openwakeword"].level == "note"


def test_check_names_the_models_that_are_not_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOM_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    handles, _ = check._handles(common.settings_of(None))
    told = {f.subject: f for f in check.machine(handles) if f.fix.startswith("loom models pull")}
    assert {"stt-whisper", "tts-piper", "llm-local", "wake-openwakeword"} == set(told)
    assert told["stt-whisper"].fix == "loom models pull whisper-tiny.en"
    assert told["stt-whisper"].level == "error"


def test_plugin_list(alone: Loom) -> None:
    rows = {row["name"]: row for row in alone.json("plugin", "list")}
    assert rows["lab"]["capabilities"][0] == "lab.greet"
    assert "calculator" in rows
    assert alone("plugin", "list").startswith("NAME")


def test_plugin_build_needs_the_wasm_tier(alone: Loom, tmp_path: Path) -> None:
    alone("plugin", "build", str(PLUGINS / "lab"), code=1)
    assert "does not claim the wasm tier: add it to tiers" in alone.err
    alone("plugin", "build", str(tmp_path / "nothing"), code=1)
    assert "No such file" in alone.err


# -- demo


def test_demo_of_a_missing_file_is_told(alone: Loom) -> None:
    alone("demo", "--wav", "/no/such.wav", code=1)
    assert "/no/such.wav: no such file" in alone.err


def test_demo_refuses_a_place_for_its_answer_before_the_host_starts(
    alone: Loom, tmp_path: Path
) -> None:
    missing = tmp_path / "no" / "where"
    alone("demo", "--text", "a", "--out", str(missing / "a.wav"), code=2)
    assert f"there is no folder {missing}; make it with `mkdir -p {missing}`" in alone.err
    assert "starting the host" not in alone.err
    alone("demo", "--text", "a", "--out", str(tmp_path), code=2)
    assert f"--out {tmp_path}: a folder" in alone.err
    assert "starting the host" not in alone.err


def test_demo_of_a_recording(alone: Loom, tmp_path: Path) -> None:
    studio = f"""
        [plugins.audio-io]
        enabled = false
        [plugins.studio]
        trusted = true
        code = "{code_hash(PLUGINS / "studio")}"
        [plugins.studio.allow]
        provide = ["*"]
        subscribe = ["query"]
        publish = ["utterance", "wake", "transcript", "agent.voice", "audio.out"]
    """
    write_config(tmp_path, studio)
    for name in ("answer", "failure", "silence"):
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    report = alone.json("demo", "--wav", str(tmp_path / "answer.wav"), "--pace", "fast")
    assert report["answer"] == "12 times 9 is 108."
    assert "loom: sulky: sulky did not start" in alone.err
    assert {"id": "test/studio", "calls": 1}.items() <= report["plugins"][-1].items()
    assert "answer  why" in alone("demo", "--text", "why")
    alone("demo", "--wav", str(tmp_path / "failure.wav"), code=1)
    assert alone.err.endswith("loom: no luck\n")
    alone("demo", "--wav", str(tmp_path / "silence.wav"), code=1)
    assert "silence.wav: no speech was found in it" in alone.err


def test_demo_prints_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    row = dict(zip(demo.SHOWN, ("a/p", "wasm", "ready", 1, 5 * 1024**2, 0), strict=True))
    report = {
        "wake": {"phrase": "hey loom", "score": 0.9}, "transcript": "what is it",
        "route": {"route": "Local", "reason": "R"},
        "tool": {"name": "calculator.evaluate", "arguments": {"e": 1}, "result": {"r": 1}},
        "answer": "It is 108.", "audio_out": {"path": "a.wav", "seconds": 1.5},
        "stages": {"stt": 1.5}, "plugins": [row],
    }  # fmt: skip
    demo._print(report)
    text = capsys.readouterr().out
    assert "    wake  hey loom (0.90)" in text
    assert "  answer  It is 108." in text
    assert "a/p     wasm  ready  1      5.0M  0" in text
    nothing = dict.fromkeys(("wake", "route", "tool", "audio_out"))
    demo._print({**report, **nothing})
    assert "    tool  -" in capsys.readouterr().out
    assert demo._exit_code(Turn(status="ok")) == 0
    assert demo._exit_code(Turn(status="error", message="no luck")) == 1
    assert "loom: no luck" in capsys.readouterr().err


# -- small parts


def test_arguments_are_words_or_one_object() -> None:
    parse = calls.parse_arguments
    assert parse([]) == {}
    assert parse(["a=1", "b=x=y", 'c=["d"]', "e="]) == {"a": 1, "b": "x=y", "c": ["d"], "e": ""}
    assert parse([' {"a": 1}']) == {"a": 1}
    for wrong in (["a"], ["=1"], ["{"], ["a=1", "{}"]):
        with pytest.raises(InvalidArguments):
            parse(wrong)
    assert calls.parse_pair("on=true") == ("on", "true")  # metadata are texts, not JSON


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (5 * 1024**2, "5.0M"),
        (3 * 1024**3, "3.0G"),
        (5 * 1024**4, "5120.0G"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert common.size(count) == text


def test_ps_shows_what_a_wasm_plugin_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loom.toml"
    config.write_text(
        f"""
[host]
runtime_dir = "{tmp_path}/run"
data_dir = "{tmp_path}/data"
[plugins.calculator]
isolation = "process"
allow = {{ provide = ["calculator.*"] }}
quotas = {{ fuel = 1_000_000_000, rate = 2 }}
"""
    )

    async def shown() -> tuple[str, Any]:
        async with Host(load_settings(config)) as host, aclosing(ControlServer(host)) as server:
            await server.start()
            arguments = {"expression": "12 * 9"}
            ends = await asyncio.gather(
                *(host.invoke("calculator.evaluate", arguments) for _ in range(3)),
                return_exceptions=True,
            )
            assert sum(isinstance(end, QuotaExceeded) for end in ends) == 1
            words = argparse.Namespace(config=config, json=False)
            await show.ps(words)
            table = capsys.readouterr().out
            return table, (await common.ask_once(words, {"op": "ps"}))[0]

    table, row = asyncio.run(shown())
    assert (row["isolation"], row["calls"], row["quota_hits"], row["denials"]) == (
        "process", 3, 1, 0,
    )  # fmt: skip
    assert row["peak_memory"] >= row["memory"] > 1_000_000
    assert row["usage"]["instances"] == 1
    assert row["usage"]["fuel"] > 10_000
    assert row["usage"]["cpu_s"] > 0
    header, line = [text.split() for text in table.splitlines()[3:5]]
    assert header == ["WASM", "ISOLATION", "INSTANCES", "RENEWALS", "CPU", "FUEL"]
    assert line[:4] == ["calculator", "process", "1", "0"]
