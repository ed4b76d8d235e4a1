"""hashicorp/go-plugin's own gRPC echo between two Go processes, for comparison: no target."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from .table import Row, row

SOURCE = Path(__file__).parent / "go_plugin_echo"
NAMES = {"16": "16 B", "1024": "1 KB", "32768": "32 KB"}


def rows() -> list[Row]:
    """Empty where there is no Go compiler, or no way to its modules."""
    if shutil.which("go") is None:
        print("go-plugin is not measured: there is no Go compiler (install golang-go)")
        return []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "echo"
        try:
            subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, check=True)
        except subprocess.CalledProcessError as error:
            print(f"go-plugin is not measured: {error}")
            return []
        printed = subprocess.run([program], check=True, capture_output=True).stdout
    found: dict[str, list[float]] = json.loads(printed)
    return [
        row(f"hashicorp/go-plugin echo, {NAMES[size]}", values, "us")
        for size, values in found.items()
    ]
