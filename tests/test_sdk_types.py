"""The SDK is typed: an author sees no Any, and a checker finds an author's mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import loom_sdk

from .support import ROOT

HERE = Path(__file__).parent / "typed"


def mypy(file: str, cache: Path, *options: str) -> str:
    """Its findings, with the SDK as an author's checker finds it."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(cache),
         "--no-error-summary", "--hide-error-context", *options, str(HERE / file)],
        capture_output=True, text=True, timeout=240, cwd=cache,
        env={"MYPYPATH": str(ROOT / "sdk" / "python"), "PATH": ""},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(loom_sdk.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_an_author_sees_no_any(tmp_path: Path) -> None:
    anys = ["--disallow-any-expr", "--disallow-any-decorated", "--disallow-any-explicit"]
    found = mypy("author.py", tmp_path, *anys)
    assert [line for line in found.splitlines() if "author.py" in line] == []


@pytest.mark.slow
def test_a_checker_tells_mistakes_where_they_are(tmp_path: Path) -> None:
    expected = {
        (number, match[1])
        for number, line in enumerate((HERE / "mistakes.py").read_text().splitlines(), 1)
        if (match := re.search(r"# expect: (\S+)", line))
    }
    pattern = r"mistakes\.py:(\d+): error: .*\[([\w-]+)\]"
    found = {(int(n), code) for n, code in re.findall(pattern, mypy("mistakes.py", tmp_path))}
    assert found == expected
