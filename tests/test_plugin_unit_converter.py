"""The unit converter: what it answers, that it needs no network once built, and who lacks Node."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loom_host import Host, load_settings, node_plugin
from loom_host.cli.check import machine
from loom_host.cli.main import main
from loom_host.manifest import load_manifest
from loom_sdk.errors import ActionFailed, PluginLoadError

from .hosting import host_tables, until
from .languages.rig import OFFLINE
from .support import ROOT

FOLDER = ROOT / "plugins" / "grpc" / "unit-converter"
MANIFEST = load_manifest(FOLDER / "plugin.toml")


@pytest.fixture(scope="module")
def built() -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node, npm is not installed")
    if not node_plugin.is_current(FOLDER):
        try:
            node_plugin.build(FOLDER)
        except PluginLoadError as error:
            if any(word in error.message for word in OFFLINE):
                pytest.skip("npm reaches no package registry here")
            raise
    return FOLDER


def tables(folder: Path, **table: Any) -> Any:
    settings = host_tables(folder)
    settings["plugins"] = {"unit-converter": {"allow": {"provide": ["units.*"]}} | table}
    return settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(built: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    async with Host(load_settings(None, tables(tmp_path_factory.mktemp("host")))) as running:
        await until(lambda: running.plugins["unit-converter"].state in ("ready", "failed"), 20)
        assert running.plugins["unit-converter"].serves, running.plugins["unit-converter"].explain()
        yield running


ANSWERS = {
    "5 miles in kilometers": ("8.04672", "5 miles is 8.04672 kilometres."),
    "How many feet are in two meters?": ("2500/381", "2 metres is about 6.56168 feet."),
    "how many teaspoons in a tablespoon": ("3", "1 tablespoon is 3 teaspoons."),
    "-40 F in C": ("-40", "-40 degrees Fahrenheit is -40 degrees Celsius."),
    "350 fahrenheit in celsius please": (
        "530/3", "350 degrees Fahrenheit is about 176.667 degrees Celsius."),
    "6'2\" in cm": ("187.96", "6 feet 2 inches is 187.96 centimetres."),
    "six foot two in metres": ("1.8796", "6 feet 2 inches is 1.8796 metres."),
    "half a mile in metres": ("804.672", "0.5 miles is 804.672 metres."),
    "two and a half hours in minutes": ("150", "2.5 hours is 150 minutes."),
    "one hundred and five point two pounds to kg": (
        "47.717917324", "105.2 pounds is about 47.7179 kilograms."),
    "60 mph to km/h": ("96.56064", "60 miles per hour is about 96.5606 kilometres per hour."),
    "10 square feet in m2": ("0.9290304", "10 square feet is about 0.92903 square metres."),
    "5 cubic feet in litres": ("141.58423296", "5 cubic feet is about 141.584 litres."),
    "100 Mbps in MB/s": ("12.5", "100 megabits per second is 12.5 megabytes per second."),
    "1 GB in MiB": ("953.67431640625", "1 gigabyte is about 953.674 mebibytes."),
    "5 kilomters in miles": ("78125/25146", "5 kilometres is about 3.10686 miles."),
    "5 in to cm": ("12.7", "5 inches is 12.7 centimetres."),
    "10 cm in in": ("500/127", "10 centimetres is about 3.93701 inches."),
    "1 light year in km": (
        "9460730472580.8", "1 light year is about 9460730000000 kilometres."),
    "1 nm in km": ("0.000000000001",
                   "1 nanometre is 1 times 10 to the power of -12 kilometres."),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("question", ANSWERS)
async def test_quantities_as_written_and_as_spoken(host: Host, question: str) -> None:
    output = (await host.invoke("units.convert", {"question": question})).output
    assert (output["exact"], output["speech"]) == ANSWERS[question]


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("question", "code", "part"),
    [
        ("7 bananas in feet", "UNKNOWN_UNIT", "units.list"),
        ("3 kg in metres", "INCOMPATIBLE_UNITS", "kilograms measure mass, metres measure length"),
        ("hello there", "NOT_UNDERSTOOD", "5 miles in kilometres"),
        ("1e400 m in km", "NOT_UNDERSTOOD", "too large"),
        ("-300 C in F", "BELOW_ABSOLUTE_ZERO", "absolute zero"),
        ("1/0 m in km", "NOT_UNDERSTOOD", "zero"),
    ],
)
async def test_what_cannot_be_converted_says_why(
    host: Host, question: str, code: str, part: str
) -> None:
    with pytest.raises(ActionFailed, match=part) as raised:
        await host.invoke("units.convert", {"question": question})
    assert raised.value.code == code


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_there_and_back_is_exact_for_every_unit(host: Host) -> None:
    kinds = (await host.invoke("units.list")).output["kinds"]
    assert {"length", "mass", "time", "area", "volume", "speed", "data", "temperature"} <= set(
        kinds
    )
    for kind, units in kinds.items():
        first = units[0].partition(",")[0]
        for names in units:
            unit = names.partition(",")[0]
            there = await host.invoke("units.convert", {"question": f"7 {unit} to {first}"})
            if "exact" not in there.output:
                assert unit in ("radian",), (kind, unit)
                continue
            back = f"{there.output['exact']} {first} to {unit}"
            assert (await host.invoke("units.convert", {"question": back})).output["value"] == 7


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_the_examples_of_its_manifest_are_true(host: Host) -> None:
    told = [e for e in MANIFEST.capabilities[0].examples if "arguments" in e]
    for example in told:
        output = (await host.invoke("units.convert", dict(example["arguments"]))).output
        assert output | example.get("output", {}) == output


async def test_without_node_the_check_gives_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node_plugin.missing(MANIFEST) == ("Node.js is missing", node_plugin.NODE_FIX)
    with pytest.raises(PluginLoadError, match="built with npm, which is missing"):
        (tmp_path / "p").mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, tmp_path / "p")
        node_plugin.build(tmp_path / "p")
    async with Host(load_settings(None, tables(tmp_path))) as host:
        handle = host.plugins["unit-converter"]
        await until(lambda: handle.state == "failed", 20)
        assert "node" in handle.reason
        (finding,) = [f for f in machine([handle]) if f.subject == "unit-converter"]
        assert (finding.level, finding.fix) == ("error", node_plugin.NODE_FIX)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_unbuilt_it_names_the_command_that_builds_it(tmp_path: Path) -> None:
    copy = tmp_path / "plugins" / "unit-converter"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("build"))
    manifest = load_manifest(copy / "plugin.toml")
    lack = ("its npm packages are missing or old", f"loom plugin build {copy}")
    assert node_plugin.missing(manifest) == lack
    (copy / "package-lock.json").unlink()
    what, fix = node_plugin.missing(manifest) or ("", "")
    assert "neither package-lock.json nor node_modules" in what
    assert fix.startswith("npm install --package-lock-only")
    (copy / "package.json").write_text('{ "type": "module" }')  # it names none
    assert node_plugin.missing(manifest) is None


@pytest.mark.slow
def test_the_build_command_builds_once(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "unit-converter"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("build"))
    assert main(["plugin", "build", str(copy)]) == 0
    assert node_plugin.missing(load_manifest(copy / "plugin.toml")) is None
    assert main(["plugin", "build", str(copy)]) == 0
    assert "up to date" in capsys.readouterr().out
    assert not [path for path in (copy / "build").rglob("*") if path.is_symlink()]  # for packages
    assert [path.name for path in (copy / "build").glob(".new-*")] == []
    (copy / "package-lock.json").write_text((copy / "package-lock.json").read_text() + "\n")
    assert not node_plugin.is_current(copy)
