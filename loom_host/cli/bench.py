"""`loom bench`: the measurements of the source tree."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from loom_host.discovery import PACKAGE
from loom_sdk.errors import ConfigError

ROOT = PACKAGE.parent


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="measure the host (in its source tree)")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="such as bus; default: all")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """What `python -m bench` returns. Raises ConfigError where there is none."""
    if not (ROOT / "bench" / "__main__.py").is_file():
        raise ConfigError(
            "an installed host has no measurements: get the source tree and run `make bench` there"
        )
    command = [sys.executable, "-m", "bench", *arguments.groups]
    return subprocess.run(command, cwd=ROOT, check=False).returncode
