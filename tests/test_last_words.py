"""Of what a program writes at its end the line is quoted that says why."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loom_host.runtimes.grpc import last_words
from loom_host.runtimes.grpc.last_words import LastWords, near_limit
from loom_host.runtimes.grpc.lines import MAX_LINE


def of(text: str) -> LastWords:
    words = LastWords()
    for line in filter(None, map(str.rstrip, text.splitlines())):
        words.add(line)
    return words


def end_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_of_node_it_is_the_error_and_not_only_the_stack_below_it(tmp_path: Path) -> None:
    deep = "const f = (n) => { if (!n) throw Object.assign(new TypeError('no door'), { a: 1 }); "
    (tmp_path / "end.js").write_text(deep + "f(n - 1) };\nf(20);\n")
    assert "TypeError: no door | ... | " in of(end_of("node", str(tmp_path / "end.js"))).quote()


def test_of_python_the_error_is_the_last_line_anyway() -> None:
    quoted = of(end_of(sys.executable, "-c", "raise ValueError('no door')")).quote()
    assert quoted.endswith(" | ValueError: no door")
    assert quoted.count("no door") == 1


@pytest.mark.parametrize(
    "line",
    [
        "fatal error: out of memory",
        "panic: no door",
        "thread 'main' panicked at src/main.rs:4:5:",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "  [cause]: RangeError [ERR_X]: no door",
        "java.lang.IllegalStateException: no door",
    ],
)
def test_errors_of_other_runtimes_are_known(line: str) -> None:
    assert of(f"before\n{line}\n" + "at x\n" * 60).quote() == (
        f"; its last lines: {line} | ..." + " | at x" * 5
    )


@pytest.mark.parametrize(
    "line", ["ready", "errors: none", "throw new Error('x');", "runtime.fatal()"]
)
def test_what_is_no_error_is_quoted_among_the_last_lines_alone(line: str) -> None:
    assert line not in of(f"{line}\n" + "at x\n" * 5).quote()


def test_an_error_of_long_ago_is_not_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "RECENT_S", 0.0)
    assert "panic" not in of("panic: no door\n" + "at x\n" * 5).quote()


def test_a_line_made_to_take_long_does_not() -> None:
    line, began = "Error." * (MAX_LINE // 6), time.perf_counter()
    assert of(f"{line}\n" * 300).cause == ""
    assert time.perf_counter() - began < 1  # it was 10 s and more, in the host's loop


def test_nothing_written_is_nothing_quoted() -> None:
    assert LastWords().quote() == ""


def test_memory_is_told_of_where_it_was_nearly_all_used() -> None:
    assert near_limit(95, 100) == "; it held up to 95 bytes of memory, the quota is 100"
    assert near_limit(80, 100) == near_limit(80, 0) == ""
