"""The code blocks of the documents: found, sorted by language, and run as a reader would.

A comment before a block says how it is run where its language does not: `<!-- run: VERB DETAIL -->`

    skip, REASON         it is not, because
    by FILE::TEST        that test runs the same
    file PATH            it is written to PATH; one whose first line is `# PATH` needs no comment
    prints               the commands of the block before print these lines
    answers WORD ...     the commands are run at a terminal where somebody types the words
    in WAY               only by who goes that way, where a page shows several
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .support import ROOT

LANGUAGES = ("sh", "console", "toml", "python", "js", "c", "zig", "go", "json", "text")
VERBS = ("skip", "by", "file", "prints", "answers", "in")
_COMMENT = re.compile(r"<!-- run: (\w+),?\s*(.*?) -->")
_FILE = re.compile(r"(?:#|//) ([\w./-]+\.\w+)")
_START_S = 240.0  # where a first-party component must be built first


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    verb: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The path that it is written to, or nothing."""
        if self.verb == "file":
            return self.detail
        named = _FILE.fullmatch(self.text.partition("\n")[0])
        return named[1] if named and self.language != "sh" else ""


def pages() -> list[Path]:
    """The documents, README first."""
    names = ("README.md", "CONTRIBUTING.md", "docs/*.md", "sdk/**/README.md")
    found = [path for name in names for path in sorted(ROOT.glob(name))]
    return [path for path in found if not {"build", "node_modules"} & set(path.parts)]


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    page = str(path.relative_to(ROOT))
    found: list[Block] = []
    opened, verb, detail = 0, "", ""
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines, 1):
        if comment := _COMMENT.fullmatch(line):
            verb, detail = comment[1], comment[2]
        elif line.startswith("```") and not opened:
            opened, language = number, line[3:]
        elif line == "```":
            text = "\n".join(lines[opened : number - 1]) + "\n"
            found.append(Block(page, opened, language, text, verb, detail))
            opened, verb, detail = 0, "", ""
    return found


def hidden_in(path: Path) -> list[int]:
    """Lines of code that are set off by blanks, where no test would find them."""
    fenced, hidden, before = False, [], ""
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and re.match(r"    \S", line) and not before.strip():
            hidden.append(number)
        before = line
    return hidden


def commands_of(text: str) -> Iterator[str]:
    """The commands of a shell script: one line each, or as many as belong together."""
    chunk = ""
    for line in text.splitlines():
        chunk += line + "\n"
        done = subprocess.run(["bash", "-n", "-c", chunk], capture_output=True, check=False)
        whole = done.returncode == 0 and not line.endswith("\\") and not done.stderr
        if whole and chunk.strip():
            yield chunk.strip()
        chunk = "" if whole else chunk
    assert not chunk.strip(), f"not a whole command: {chunk}"


def missing_lines(stated: str, printed: str) -> list[str]:
    """Stated lines that were not printed, in their order; `...` stands for anything."""
    rest = iter(printed.splitlines())
    missing = []
    for line in filter(str.strip, stated.splitlines()):
        pattern = ".*".join(map(re.escape, line.strip().split("...")))
        if not any(re.fullmatch(pattern, other.strip()) for other in rest):
            missing.append(line)
            break
    return missing


@dataclass
class Reader:
    """Somebody who follows a page by the letter, in a folder and home of their own."""

    folder: Path
    took: list[tuple[str, float]] = field(default_factory=list)
    """Each command, and its seconds."""
    printed: str = ""
    """Of the last block."""
    _cwd: Path = field(init=False)
    _behind: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cwd = self.folder

    @property
    def env(self) -> dict[str, str]:
        """Caches of models and compiled code are the machine's; all else is below the folder."""
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        home = self.folder.parent / f"{self.folder.name}-home"
        home.mkdir(exist_ok=True)
        own = {"HOME": home, "XDG_DATA_HOME": home / "data", "XDG_CONFIG_HOME": home / "config"}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return (
            {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
            | {key: str(value) for key, value in own.items()}
            | {"GOPATH": os.environ.get("GOPATH") or str(Path.home() / "go")}
            | {"XDG_CACHE_HOME": cache, "XDG_RUNTIME_DIR": str(home / "run"), "PATH": path}
        )

    def write(self, block: Block) -> None:
        path = self._cwd / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def script(self, text: str, answers: Sequence[str] = ()) -> str:
        """Run commands in one shell, one after another; what they print.

        `loom run &` is left running, and waited for until it answers.

        Raises:
            AssertionError: one failed; with all that was printed.
        """
        self.printed = ""
        waiting: list[str] = []
        for command in commands_of(text):
            if re.search(r"&(\s*#.*)?$", command):
                self._shell(waiting, answers)
                waiting = []
                self._leave_running(re.sub(r"&(\s*#.*)?$", "", command))
            else:
                waiting.append(command)
        self._shell(waiting, answers)
        return self.printed

    def _shell(self, commands: Sequence[str], answers: Sequence[str]) -> None:
        if not commands:
            return
        marks = self.folder.parent / "marks"
        marks.unlink(missing_ok=True)
        stamp = f'\necho "$EPOCHREALTIME" "$PWD" >>{marks}\n'
        script = "set -euo pipefail\n" + stamp + stamp.join(commands) + stamp
        code, printed = self._run(script, answers)
        self.printed += printed
        times = [line.partition(" ") for line in marks.read_text().splitlines()]
        seconds = [float(time_) for time_, _, _ in times]
        pairs = zip(seconds[1:], seconds, strict=False)
        self.took += zip(commands, (end - begin for end, begin in pairs), strict=False)
        assert code == 0, f"exit code {code} of: {commands[len(seconds) - 1]}\n{self.printed}"
        self._cwd = Path(times[-1][2])

    def _run(self, script: str, answers: Sequence[str]) -> tuple[int, str]:
        host_end, shell_end = pty.openpty() if answers else (-1, subprocess.DEVNULL)
        if answers:
            os.write(host_end, "".join(f"{word}\n" for word in answers).encode())
        try:
            done = subprocess.run(
                ["bash", "-c", script], cwd=self._cwd, env=self.env, text=True, timeout=240,
                stdin=shell_end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        finally:
            for end in (host_end, shell_end) if answers else ():
                os.close(end)
        return done.returncode, done.stdout

    def _leave_running(self, command: str) -> None:
        log = self.folder.parent / "behind.log"
        with log.open("ab") as output:
            shell = ["bash", "-c", f"exec {command}"]
            child = subprocess.Popen(
                shell, cwd=self._cwd, env=self.env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._behind.append(child)
        began = time.monotonic()
        while self._run("loom ps", ())[0] != 0:
            assert child.poll() is None, log.read_text()
            assert time.monotonic() - began < _START_S, log.read_text()
        self.took.append((f"{command.strip()} &", time.monotonic() - began))

    def close(self) -> None:
        """End what was left running."""
        for child in self._behind:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def follow(self, blocks: Sequence[Block]) -> None:
        """Do what the page says, block by block; output and times are in `printed` and `took`."""
        for block in blocks:
            try:
                self._do(block)
            except AssertionError as error:
                raise AssertionError(f"{block}: {error}") from error

    def _do(self, block: Block) -> None:
        if block.verb in ("skip", "by"):
            return
        if block.verb == "prints":
            missing = missing_lines(block.text, self.printed)
            assert not missing, f"{missing[0]!r} was not printed, but\n{self.printed}"
        elif block.file:
            self.write(block)
        elif block.language == "sh":
            self.script(block.text, block.detail.split() if block.verb == "answers" else ())
        elif block.language == "console":
            self._converse(block)
        elif block.language == "python":
            program = self.folder / "block.py"
            program.write_text(block.text)
            self.script(f"python {program}")

    def _converse(self, block: Block) -> None:
        """`$ command`, and what it prints."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, stated = part.partition("\n")
            printed = self.script(command)
            missing = missing_lines(stated, printed)
            assert not missing, f"{missing[0]!r} was not printed, but\n{printed}"


BLOCKS = [block for page in pages() for block in blocks_of(page)]
"""Of all documents."""
