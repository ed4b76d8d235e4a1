"""Regenerates the Python stubs of `proto/plugin.proto` into the SDK: `python -m tools.proto`.

With `--check` nothing is written; the exit code is 1 when a committed stub differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto" / "plugin.proto"
TARGET = ROOT / "sdk" / "python" / "loom_sdk" / "_proto"
NAMES = ("plugin_pb2.py", "plugin_pb2.pyi", "plugin_pb2_grpc.py")


def generate(proto: Path = PROTO) -> dict[str, str]:
    """File name to text of every stub. Raises RuntimeError when the compiler refuses the proto."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        outputs = (f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python"))
        include = f"-I{files('grpc_tools').joinpath('_proto')}"
        command = ["protoc", f"-I{proto.parent}", include, *outputs, proto.name]
        if protoc.main(command) != 0:
            raise RuntimeError(f"{proto} does not compile: see the lines above")
        return {name: _normal((Path(folder) / name).read_text()) for name in NAMES}


def _normal(text: str) -> str:
    """The import made relative, as the stubs lie in a package; no trailing space or blank line."""
    text = text.replace("\nimport plugin_pb2 as", "\nfrom . import plugin_pb2 as")
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def drift(target: Path = TARGET) -> list[str]:
    """Names of the stubs in `target` that differ from what the proto gives."""
    return [
        name
        for name, text in generate().items()
        if not (target / name).is_file() or (target / name).read_text() != text
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 for drift under `--check`."""
    parser = argparse.ArgumentParser(prog="python -m tools.proto", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    if not parser.parse_args(arguments).check:
        for name, text in generate().items():
            (TARGET / name).write_text(text)
        return 0
    if stale := drift():
        print(
            f"{', '.join(stale)} differ from {PROTO.name} as grpcio-tools "
            f"{version('grpcio-tools')} compiles it: run `make proto`",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
