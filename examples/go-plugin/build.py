"""Build the plugin: stubs from plugin.proto, then the program, all into build/.

    python build.py [PROTO]

Needs Go 1.26 or newer, and protoc: the program, or the one of PyPI's grpcio-tools.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
TOOLS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)
PACKAGE = "example.com/loom-plugin/build/loompb"


def run(*command: str) -> None:
    subprocess.run(command, cwd=HERE, check=True)


def protoc() -> list[str]:
    found = shutil.which("protoc")
    return [found] if found else [sys.executable, "-m", "grpc_tools.protoc"]


def stubs(proto: Path) -> None:
    (BUILD / "loompb").mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        run("go", "build", "-o", str(BUILD / tool.rpartition("/")[2]), tool)
    plugins = [f"--plugin={BUILD / tool.rpartition('/')[2]}" for tool in TOOLS]
    outputs = []
    for kind in ("go", "go-grpc"):
        outputs += [f"--{kind}_out=build/loompb", f"--{kind}_opt=paths=source_relative"]
        outputs += [f"--{kind}_opt=M{proto.name}={PACKAGE}"]
    run(*protoc(), f"-I{proto.parent}", *plugins, *outputs, proto.name)


def main() -> None:
    proto = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1] / "proto" / "plugin.proto"
    stubs(proto.resolve())
    run("go", "build", "-o", "build/plugin", ".")


if __name__ == "__main__":
    main()
