"""`python -m bench [GROUP ...]`: measure, print the table, write bench/results.json."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from .table import Row, show

GROUPS = (
    "bus", "agents", "invoke", "router", "wasm_tier",
    "grpc_tier", "startup", "voice", "storage", "memory", "tutorial",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=[])
    groups = parser.parse_args().groups or GROUPS
    rows: list[Row] = []
    for group in groups:
        print(f"measuring {group}", flush=True)
        rows += import_module(f"bench.{group}").rows()
    show(rows)
    measured = {row["name"] for row in rows}
    kept = [row for row in _before() if row["name"] not in measured]
    RESULTS.write_text(json.dumps(rows + kept, indent=2) + "\n")


def _before() -> list[Row]:
    """Rows of groups that are not measured this time stay."""
    if not RESULTS.exists():
        return []
    rows: list[Row] = json.loads(RESULTS.read_text())
    return rows


if __name__ == "__main__":
    main()
