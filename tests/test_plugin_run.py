"""`loom plugin run`: a plugin alone in a host, its console and prompt, reload on save, debugger."""

from __future__ import annotations

import argparse
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loom_host.cli.main import main
from loom_host.cli.plugin_console import INTERRUPTED, Console
from loom_host.cli.plugin_prompt import HELP
from loom_host.cli.plugin_run import add_parser
from loom_host.workbench.watch import look

from .docs_runner import blocks_of
from .support import ROOT
from .workbench import LOOM, PATIENCE_S, SOURCE, Debugger, all_gone, author, bell, below

TIERS = ["grpc", "native", "wasm"]


@pytest.mark.parametrize("tier", ["grpc", "native"])
def test_a_plugin_is_called_and_heard_as_it_works(tier: str, tmp_path: Path) -> None:
    bell(tmp_path / "bell", tier)
    with author(tmp_path / "bell") as me:
        assert me.until("ready")["tier"] == tier
        grants = me.until("grants")
        assert grants["granted"] == {
            "subscribe": ["pull"],
            "publish": ["rings"],
            "provide": ["bell.ring", "bell.stray"],
        }
        assert grants["withheld"] == ["https://example.org"]
        assert me.ring(times=2) == "ding ding"
        assert me.until("log", message="rung")["fields"] == {"times": "2"}
        me.type("send pull rope hard who=ada")
        me.until("sent", delivered=1)
        event = me.until("event", topic="rings")
        assert (event["text"], event["source"]) == ("hard", "bell")
        assert event["metadata"]["from"] == "ada"
        me.type("call bell.stray")
        assert "may not publish" in me.until("error")["message"]
        denied = me.until("denied")
        assert denied["permission"] == "publish:elsewhere"
        assert 'publish = ["rings", "elsewhere"]' in denied["line"]
        assert me.finish() == 1


@pytest.mark.timeout(900)  # builds, on a busy machine
@pytest.mark.parametrize(
    "tier",  # a start and three reloads
    [pytest.param(t, marks=pytest.mark.soak if t == "wasm" else pytest.mark.slow) for t in TIERS],
)
def test_what_is_saved_runs_and_what_is_broken_does_not(tier: str, tmp_path: Path) -> None:
    source = bell(tmp_path / "bell", tier)
    with author(tmp_path / "bell") as me:
        me.until("ready", tier=tier)
        assert me.ring() == "ding"
        source.write_text(SOURCE.replace('"ding"', '"dong"'))
        assert me.until("reloaded")["changed"] == ["bell_of_test.py"]
        assert me.ring() == "dong"
        source.write_text(SOURCE.replace("class Bell", "clas Bell"))
        kept = me.until("kept")
        lines = [row["message"] for row in me.seen if row["kind"] == "log"]
        told = "\n".join([kept["message"], *lines])
        assert "SyntaxError" in told
        assert "line 4" in told
        assert tier == "wasm" or "clas Bell" in told  # componentize-py quotes no source
        assert me.ring() == "dong"
        source.write_text(SOURCE.replace('"ding"', '"dung"'))
        me.until("reloaded")
        assert me.ring() == "dung"
        assert me.finish() == 0
    if tier == "wasm":
        assert next(row["seconds"] for row in me.seen if row["kind"] == "building") == 0
        assert any(row["kind"] == "built" for row in me.seen)


@pytest.mark.slow
def test_a_changed_manifest_is_taken_with_its_grants_and_quotas(tmp_path: Path) -> None:
    folder = tmp_path / "bell"
    bell(folder, "grpc")
    with author(folder, "--no-reload") as me:
        me.until("ready")
        me.type("call bell.stray")
        me.until("denied")
        me.until("error")
        text = (folder / "plugin.toml").read_text()
        wider = text.replace('["rings"]', '["rings", "elsewhere"]')
        (folder / "plugin.toml").write_text(wider + "[quotas]\nrate = 1\n")
        me.type("reload")
        me.until("reloaded", changed=[])
        me.type("call bell.stray")
        me.until("answer", output="never")
        me.until("event", topic="elsewhere")
        me.type("call bell.ring")
        assert "rate" in me.until("error")["message"]
        (folder / "plugin.toml").write_text("[plugin")
        me.type("reload")
        assert "plugin.toml" in me.until("kept")["message"]
        me.type("state")
        assert me.until("state")["state"] == "ready"


def test_commands_that_are_wrong_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    bell(tmp_path / "bell", "native")
    with author(tmp_path / "bell") as me:
        for line, words in (
            ("cal bell.ring", "did you mean 'call'"),
            ("call", "CAPABILITY"),
            ("call bell.ring times=many", "times"),
            ('call bell.ring "times=1', "quotation"),
            ("call bell.rang", "bell.rang"),
            ("send pull", "TYPE"),
            ("events a..b", "a..b"),
        ):
            me.type(line)
            assert words in me.until("error")["message"], line
        me.type("events off")
        me.type("send pull rope who=ada")
        me.until("sent")
        assert me.ring() == "ding"
        assert me.finish() == 1
    assert not any(row["kind"] == "event" for row in me.seen)


def test_the_code_of_a_plugins_own_error_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=False)
    for code, message in (
        ("NO_WORDS", "there is no word"),
        ("CAPABILITY_ERROR", "it failed"),
        (INTERRUPTED, "interrupted"),
    ):
        console.show("error", {"message": message, "code": code})
    shown = ["NO_WORDS: there is no word", "it failed", "interrupted"]
    assert capsys.readouterr().out.splitlines() == [f"error  {text}" for text in shown]


def test_what_cannot_start_is_told_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bell(tmp_path / "bell", "native")
    source.write_text("import no_such_module\n")
    with author(tmp_path / "bell") as me:
        assert me.process.wait(PATIENCE_S) == 1
        rows = me.rest()
    assert "bell_of_test.py" in "".join(row["message"] for row in rows if row["kind"] == "log")
    assert main(["plugin", "run", str(tmp_path / "bell"), "--tier", "wasm", "--debug"]) == 1
    assert "--tier native" in capsys.readouterr().err
    assert main(["plugin", "run", str(tmp_path / "nothing")]) == 1
    assert "plugin.toml" in capsys.readouterr().err


@pytest.mark.slow
def test_native_code_that_ends_its_process_is_told_and_started_again(tmp_path: Path) -> None:
    source = bell(tmp_path / "bell", "native")
    deadly = SOURCE.replace('sound = "ding"', "import os; os._exit(3)")
    source.write_text(deadly)
    with author(tmp_path / "bell") as me:
        me.until("ready")
        me.type("call bell.ring")
        assert "exit code 3" in me.until("ended")["message"]
        me.until("error")
        source.write_text(SOURCE)
        me.until("reloaded")
        assert me.ring() == "ding"


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["grpc", "native"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_ends_leaves_no_process(
    tier: str, number: signal.Signals, tmp_path: Path
) -> None:
    bell(tmp_path / "bell", tier)
    with author(tmp_path / "bell") as me:
        me.until("ready")
        started = below(me.process.pid)
        assert started
        me.process.send_signal(number)
        code = me.process.wait(PATIENCE_S)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert not all_gone(started)


def test_only_what_an_author_writes_counts_as_saved(tmp_path: Path) -> None:
    for name in (
        "plugin.py",
        "a/b.txt",
        "build/x.wasm",
        ".git/index",
        "__pycache__/p.pyc",
        "p.py~",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(look(tmp_path)) == ["a/b.txt", "plugin.py"]


# -- at a terminal


class Screen:
    """A terminal with somebody before it."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process, self._terminal = process, terminal
        self._text = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, words: str) -> None:
        """These words appear; what came before them is forgotten."""
        end = time.monotonic() + PATIENCE_S
        while words not in self._text:
            left = end - time.monotonic()
            assert left > 0, f"no {words!r} in {self._text!r}"
            if select.select([self._terminal], [], [], left)[0]:
                self._text += os.read(self._terminal, 65536).decode("utf-8", "replace")
        self._text = self._text.partition(words)[2]


@contextmanager
def screen(folder: Path, *options: str) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    command = [*LOOM, "plugin", "run", str(folder), *options]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Screen(process, ours)
        finally:
            started = below(process.pid)
            process.kill()
            process.wait()
            os.close(ours)
            assert not all_gone(started)


def test_at_a_terminal_words_are_completed_and_events_do_not_break_the_prompt(
    tmp_path: Path,
) -> None:
    source = bell(tmp_path / "bell", "native")
    with screen(tmp_path / "bell") as me:
        me.until("test/bell runs (native")
        me.until("may not network: https://example.org (--allow-network grants it)")
        me.until("loom>")
        me.type("call bell.r\t times=2\r")
        me.until('"ding ding"')
        me.type("call bell.ri")
        source.write_text(SOURCE.replace('"ding"', '"dong"'))
        me.until("reloaded (native")
        me.until("loom>")
        me.until("call bell.ri")
        me.type("ng\r")
        me.until('"dong"')
        me.type("\x04")
        assert me.process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_at_a_terminal_ctrl_c_ends_the_call_and_then_the_session(tmp_path: Path) -> None:
    source = bell(tmp_path / "bell", "grpc")
    source.write_text(SOURCE.replace('sound = "ding"', "import time; time.sleep(60)"))
    with screen(tmp_path / "bell") as me:
        me.until("loom>")
        me.type("call bell.ring\r")
        me.until("rung")
        os.kill(me.process.pid, signal.SIGINT)
        me.until("interrupted")
        me.until("loom>")
        started = below(me.process.pid)
        me.type("\x03")
        assert me.process.wait(PATIENCE_S) == 0
        assert not all_gone(started)


@pytest.mark.slow
def test_at_a_terminal_a_first_start_that_fails_waits_to_be_mended(tmp_path: Path) -> None:
    source = bell(tmp_path / "bell", "native")
    source.write_text(SOURCE.replace("class Bell", "clas Bell"))
    with screen(tmp_path / "bell") as me:
        me.until("clas Bell")
        me.until("SyntaxError")
        me.until("loom>")
        source.write_text(SOURCE)
        me.until("reloaded")
        me.type("call bell.ring\r")
        me.until('"ding"')


# -- under a debugger


@contextmanager
def attached(port: int, file: Path, line: int) -> Iterator[Debugger]:
    debugger = Debugger(port)
    try:
        debugger.attach(file, line)
        yield debugger
    finally:
        debugger.close()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["grpc", "native"])
def test_a_debugger_stops_at_a_breakpoint_also_after_a_reload(tier: str, tmp_path: Path) -> None:
    source = bell(tmp_path / "bell", tier)
    line = SOURCE.splitlines().index('        sound = "ding"') + 2
    with author(tmp_path / "bell", "--debug=0") as me:
        port = me.until("debugger")["port"]
        me.until("ready")
        for sound, wait_s in (("ding", 0.0), ("dong", 20.0 if tier == "grpc" else 0.0)):
            if sound == "dong":
                source.write_text(SOURCE.replace('"ding"', '"dong"'))
                me.until("reloaded")
            with attached(port, source, line) as debugger:
                me.type("call bell.ring times=2")
                stopped = debugger.until("event", "stopped")
                assert stopped["reason"] == "breakpoint"
                time.sleep(wait_s)  # longer than three health checks
                frames = debugger.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"]
                assert (frames[0]["name"], frames[0]["line"]) == ("ring", line)
                scope = debugger.ask("scopes", frameId=frames[0]["id"])["scopes"][0]
                found = debugger.ask("variables", variablesReference=scope["variablesReference"])[
                    "variables"
                ]
                assert {"sound": repr(sound), "times": "2"}.items() <= {
                    v["name"]: v["value"] for v in found
                }.items()
                debugger.ask("continue", threadId=stopped["threadId"])
                assert me.until("answer")["output"] == f"{sound} {sound}"
        started = below(me.process.pid)
        assert me.finish() == 0
        assert not all_gone(started)


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    bell(tmp_path / "bell", "native")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["plugin", "run", str(tmp_path / "bell"), f"--debug={port}"]) == 1
    assert "is taken" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_is_followed(tmp_path: Path) -> None:
    page = [block for block in blocks_of(ROOT / "docs/WORKBENCH.md") if block.verb == "by"]
    typed = next(block.text for block in page if block.language == "text")
    new, run = next(block.text for block in page if block.language == "sh").splitlines()
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    for command, said, shown in (
        (new, "", "bells/plugin.toml"),
        (run, typed, '"Hello, Ada!"'),
    ):
        done = subprocess.run(
            [*LOOM, *command.split()[1:]], cwd=tmp_path, env=environment, input=said,
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert shown in done.stdout
    for words in (
        "me/bells runs (grpc", "event  notes note.added from cli list=home buy milk",
        "events that are shown: notes", "state        ready", "reloaded (grpc",
    ):  # fmt: skip
        assert words in done.stdout


def test_every_option_and_command_is_on_the_page() -> None:
    page = (ROOT / "docs/WORKBENCH.md").read_text()
    verbs = argparse.ArgumentParser().add_subparsers()
    add_parser(verbs)
    for action in verbs.choices["run"]._actions:
        assert all(f"`{o}" in page for o in action.option_strings if o not in ("-h", "--help"))
    for line in HELP.splitlines():
        assert f"`{line.split()[0].rstrip(',')}" in page, line
