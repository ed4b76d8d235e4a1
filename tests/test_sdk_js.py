"""The JavaScript SDK: its own tests, and that it tells the same as the Python one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from loom_sdk import errors
from loom_sdk.status import STATUS_ERRORS

from .languages.rig import missing, npm_packages
from .support import ROOT

SDK = ROOT / "sdk" / "js"


@pytest.fixture(scope="module")
def sdk() -> Path:
    if why := missing("node") or npm_packages(SDK):
        pytest.skip(why)
    return SDK


def node(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", *words], cwd=SDK, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_its_own_tests_pass(sdk: Path) -> None:
    files = sorted(str(path) for path in (sdk / "test").glob("*.test.js"))
    done = node("--test", *files)
    assert done.returncode == 0, done.stdout
    assert "# fail 0\n" in done.stdout
    assert int(re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[0]) >= 16


@pytest.mark.slow
def test_it_has_the_error_table_of_the_python_sdk(sdk: Path) -> None:
    code = """
        import { TABLE, fromStatus } from "./src/index.js";
        const rows = [...TABLE].map(([kind, row]) => [kind.name, row]);
        const parents = [...TABLE].map(([kind]) => [kind.name, Object.getPrototypeOf(kind).name]);
        const kinds = process.argv.slice(1).map((name) => [name, fromStatus(name, "").name]);
        console.log(JSON.stringify([rows, parents, kinds].map(Object.fromEntries)));
    """
    done = node("--input-type=module", "-e", code, *STATUS_ERRORS)
    assert done.returncode == 0, done.stderr
    rows, parents, kinds = json.loads(done.stdout)
    assert rows == {kind.__name__: list(row) for kind, row in errors.TABLE.items()}
    tree = {kind.__name__: kind.__mro__[1].__name__ for kind in errors.TABLE}
    assert parents == tree | {"LoomError": "Error"}
    assert kinds == {name: kind.__name__ for name, kind in STATUS_ERRORS.items()}


def test_its_types_name_all_that_it_exports() -> None:
    types = (SDK / "src" / "index.d.ts").read_text()
    exported = set(re.findall(r"^export (?:class|const|function) (\w+)", types, re.MULTILINE))
    for name in ("Plugin", "Context", "Result", "QoS", "bytes", "text", "matches", "TABLE"):
        assert name in exported
    for kind in errors.TABLE:
        assert kind.__name__ in exported
    context = (SDK / "src" / "context.js").read_text()
    methods = re.findall(r"^  (?:async |get )?(\w+)\(.*\{$", context, re.MULTILINE)
    for name in set(methods) - {"constructor", "if"}:
        assert re.search(rf"\b{name}\b[(<:]", types), name
