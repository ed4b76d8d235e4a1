"""What the verb groups share: the settings to use, the running host, tables and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loom_host.config import load_settings, merge
from loom_host.control import ask
from loom_host.settings import Settings
from loom_sdk.errors import InvalidArguments, PluginCrashed

DEFAULT_PROFILE = {"extends": "voice"}


class WrongUsage(InvalidArguments):
    """The command line itself is wrong: told as usage is, with exit code 2."""


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data as JSON")


def whole_number(text: str) -> int:
    """For argparse: from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 0 on")
    return int(text)


def settings_of(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The named file, else the shipped voice profile."""
    if path is not None:
        return load_settings(path, overrides)
    return load_settings(None, merge(DEFAULT_PROFILE, overrides or {}))


def ask_host(arguments: argparse.Namespace, request: dict[str, Any]) -> AsyncIterator[Any]:
    """Answers of the running host that the settings name."""
    return ask(settings_of(arguments.config).host.runtime_dir, request)


async def ask_once(arguments: argparse.Namespace, request: dict[str, Any]) -> Any:
    """The one answer. Raises PluginCrashed where the host ends before it gives one."""
    async for answer in ask_host(arguments, request):
        return answer
    raise PluginCrashed("the host ended before it answered: see its log")


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table as wide as its content."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(len(row[i]) for row in texts)]) for i, title in enumerate(columns)]
    for row in [list(columns), *texts]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def size(count: float) -> str:
    """Bytes for people: 12.3M."""
    for unit in ("", "K", "M", "G"):
        if count < 1024 or unit == "G":
            return f"{count:.0f}{unit}" if unit in ("", "K") else f"{count:.1f}{unit}"
        count /= 1024
    return ""
