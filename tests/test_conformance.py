"""The conformance kit: good plugins pass, reports tell what came of it, stand-ins stand in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loom_host.cli import plugin_test
from loom_host.cli.main import main
from loom_host.conformance.checks import CHECKS, FOLDER_CHECKS, OVER_CHECKS
from loom_host.conformance.comparison import difference
from loom_host.conformance.drawing import arguments_of
from loom_host.conformance.kit import Outcome
from loom_host.conformance.plan import Plan, plan_of
from loom_host.conformance.report import as_junit, line_of
from loom_host.conformance.runner import run
from loom_host.conformance.samples import samples_of
from loom_host.conformance.stage import SOURCE
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.schema_check import compiled
from loom_sdk.errors import ConfigError
from loom_sdk.plugin import CapabilitySpec

from .conformance_matrix import failed, outcomes_of
from .core_guest import core_guest, plugin_of
from .support import ROOT
from .test_broken_plugins import CONFORMING, TESTS, named

EVERYWHERE = TESTS / "conforming" / "everywhere"
LISTENER = TESTS / "conforming" / "listener"


def native_copy(tmp_path: Path, source: Path = EVERYWHERE) -> Path:
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    return folder


async def outcomes(plan: Plan, tier: str, *only: str) -> dict[str, Outcome]:
    return {one.check: one async for one in run(plan, (tier,), only)}


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(
            one, id=named(one),
            marks=pytest.mark.soak if one.name == "everywhere" else pytest.mark.slow,
        )
        for one in CONFORMING
    ],
)  # fmt: skip
async def test_no_check_flags_a_good_plugin(folder: Path) -> None:
    tiers = plan_of(folder).manifest.tiers
    found = await outcomes_of(folder, tiers, 20.0)
    assert not failed(found)
    assert {one.tier for one in found if one.status == "passed"} >= set(tiers)


def test_every_check_is_documented() -> None:
    text = (ROOT / "docs" / "CONFORMANCE.md").read_text()
    ids = [one.id for one in FOLDER_CHECKS] + [one.id for one in CHECKS]
    for name in [*ids, *(one.id for one in OVER_CHECKS)]:
        assert f"| `{name}` |" in text, name


# -- reports


def test_the_command_tells_what_passed_and_what_was_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--tier", "native", "--only", "schema.examples", "--only", "contract.token"]
    assert main(["plugin", "test", str(EVERYWHERE), *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", "lifecycle.start"],
        ["skipped", "contract.token"],
        ["ok", "schema.examples"],
    ]
    assert "test/everywhere 1.0.0: 2 passed, 0 failed, 1 skipped" in lines[-1]


def test_a_fault_is_told_in_text_json_and_junit_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = native_copy(tmp_path)
    toml = folder / "plugin.toml"
    toml.write_text(toml.read_text().replace('"CAT", length = 3', '"KAT", length = 3'))
    asked = [str(folder), "--tier", "native", "--only", "schema.examples"]
    assert main(["plugin", "test", *asked]) == 1
    assert "FAILED   schema.examples" in (text := capsys.readouterr().out)
    assert 'the output/text is "CAT", the example says "KAT"' in text
    junit = tmp_path / "report.xml"
    assert main(["plugin", "test", *asked, "--json", "--junit", str(junit)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["plugin"], data["failed"], data["passed"]) == ("test/everywhere", 1, 1)
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    case = next(one for one in suite if one.get("name") == "schema.examples")
    assert case.get("classname") == "everywhere.native"
    failure = case.find("failure")
    assert failure is not None
    assert "KAT" in str(failure.text)


def test_a_reason_with_control_characters_makes_well_formed_xml() -> None:
    plan = plan_of(EVERYWHERE)
    outcome = Outcome("logs.readable", "grpc", "failed", "it printed \x00\x1b[1m <&>\nand more")
    suites = ElementTree.fromstring(as_junit(plan, [outcome], 1.0))
    assert "<&>" in suites[0][0][0].attrib["message"]
    assert "and more" in line_of(outcome)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (["--tier", "grpc", "--only", "no.such"], "'no.such' is no check"),
        (["--tier", "remote"], "does not claim"),
    ],
)
def test_what_the_kit_does_not_know_is_wrong_usage(
    asked: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "test", str(EVERYWHERE), *asked]) == 2
    assert word in capsys.readouterr().err


def test_the_list_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "test", "--list", "--json"]) == 0
    listed = [one["id"] for one in json.loads(capsys.readouterr().out)]
    assert listed[0] == "schema.valid"
    assert len(listed) == len(set(listed)) == len(FOLDER_CHECKS) + len(CHECKS) + len(OVER_CHECKS)


# -- conformance.toml


async def test_answers_stand_in_for_what_the_plugin_invokes(tmp_path: Path) -> None:
    folder = native_copy(tmp_path, LISTENER)
    toml = folder / "plugin.toml"
    text = toml.read_text().replace(
        'output = { text = "CAT" }', 'output = { meaning = "{\\"is\\": 1}" }'
    )
    toml.write_text(text)
    only = ("schema.examples", "permissions.asked")
    without = await outcomes(plan_of(folder), "grpc", *only)
    assert 'is "unknown"' in without["schema.examples"].reason
    (folder / "conformance.toml").write_text('[answers]\n"dictionary.define" = { is = 1 }\n')
    found = await outcomes(plan_of(folder), "grpc", *only)
    assert {one.status for one in found.values()} == {"passed"}, found


FETCHER = """
from loom_sdk import Context, Plugin, capability


class Fetcher(Plugin):
    @capability("fetcher.fetch", effects="none")
    def fetch(self, ctx: Context, url: str) -> str:
        secret = ctx.secret("key")
        return secret + ctx.http.request("GET", url).body.decode() + self.config["mark"]
"""
FETCHER_TOML = """
[plugin]
id = "test/fetcher"
version = "1.0.0"
api = "1"
type = "tool"
tier = "grpc"
entry = "fetcher_of_the_kit:Fetcher"
[config]
mark = { type = "string", default = "" }
[[capability]]
name = "fetcher.fetch"
effects = "none"
input = { type = "object", properties = { url = { type = "string" } }, required = ["url"] }
examples = [{ arguments = { url = "https://api.example/a/1" }, output = "s3cret{\\"ok\\": true}!" }]
[permissions]
network = ["https://api.example"]
secrets = ["key"]
"""
STAND_INS = """
[config]
mark = "!"
[secrets]
key = "s3cret"
[pages]
"https://api.example/a/*" = { ok = true }
[skip]
"schema.refuses" = "for a reason"
"""


def fetcher(tmp_path: Path, stand_ins: str = STAND_INS) -> Path:
    (tmp_path / "fetcher_of_the_kit.py").write_text(FETCHER)
    (tmp_path / "plugin.toml").write_text(FETCHER_TOML)
    (tmp_path / "conformance.toml").write_text(stand_ins)
    return tmp_path


async def test_pages_secrets_and_settings_are_what_the_plugin_finds(tmp_path: Path) -> None:
    found = await outcomes(plan_of(fetcher(tmp_path)), "grpc", "schema.examples", "schema.refuses")
    assert found["schema.examples"].status == "passed", found
    assert found["schema.refuses"].status == "skipped"
    assert found["schema.refuses"].reason == "for a reason"


async def test_without_a_page_the_request_fails_and_says_what_to_add(tmp_path: Path) -> None:
    stand_ins = STAND_INS.replace("/a/*", "/b/*")
    found = await outcomes(plan_of(fetcher(tmp_path, stand_ins)), "grpc", "schema.examples")
    assert "add it under [pages]" in found["schema.examples"].reason


async def test_pages_open_no_address_that_is_not_asked_for(tmp_path: Path) -> None:
    stand_ins = STAND_INS.replace("https://api.example/a/*", "*")
    folder = fetcher(tmp_path, stand_ins)
    toml = folder / "plugin.toml"
    toml.write_text(toml.read_text().replace('"https://api.example"]', '"https://other.example"]'))
    found = await outcomes(plan_of(folder), "grpc", "schema.examples", "permissions.asked")
    assert "may not reach" in found["schema.examples"].reason
    assert "network:https://api.example" in found["permissions.asked"].reason


EAR = """
from loom_sdk import Context, Plugin, capability


class Ear(Plugin):
    @capability("ear.hear", effects="none")
    def hear(self, ctx: Context, loud: bool = False) -> str:
        if ctx.content_type != "audio/pcm;rate=16000":
            raise RuntimeError("nobody meant this for the caller")
        return ctx.payload.decode()
"""
EAR_TOML = """
[plugin]
id = "test/ear"
version = "1.0.0"
api = "1"
type = "tool"
tier = "grpc"
entry = "ear_of_the_kit:Ear"
[[capability]]
name = "ear.hear"
effects = "none"
examples = [{ arguments = {}, output = "good morning" }]
[capability.input]
type = "object"
properties = { loud = { type = "boolean" } }
additionalProperties = false
"""


def ear(tmp_path: Path) -> Path:
    (tmp_path / "ear_of_the_kit.py").write_text(EAR)
    (tmp_path / "plugin.toml").write_text(EAR_TOML)
    (tmp_path / "conformance.toml").write_text(
        '[payloads]\n"ear.hear" = { file = "morning.pcm", content_type = "audio/pcm;rate=16000" }\n'
    )
    (tmp_path / "morning.pcm").write_bytes(b"good morning")
    return tmp_path


async def test_payloads_go_with_every_call_of_their_capability(tmp_path: Path) -> None:
    only = ("schema.examples", "contract.stream", "input.generated")
    found = await outcomes(plan_of(ear(tmp_path), count=20), "grpc", *only)
    assert {one.status for one in found.values()} == {"passed"}, found


async def test_without_its_payload_the_plugin_is_at_fault(tmp_path: Path) -> None:
    folder = ear(tmp_path)
    (folder / "conformance.toml").unlink()
    found = await outcomes(plan_of(folder, count=20), "grpc", "schema.examples", "input.generated")
    assert {found[name].status for name in ("schema.examples", "input.generated")} == {"failed"}


def test_a_payload_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    folder = ear(tmp_path)
    (folder / "morning.pcm").unlink()
    with pytest.raises(ConfigError, match=r"\[payloads\] ear.hear: `file` must name a file"):
        plan_of(folder)


@pytest.mark.parametrize("place", ["../key", "/key", "link"])
def test_a_payload_is_of_the_folder_and_nothing_else_of_the_machine(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("the operator's")
    (tmp_path / "ear").mkdir()
    folder = ear(tmp_path / "ear")
    (folder / "link").symlink_to(tmp_path / "key")
    named = str(tmp_path / "key") if place == "/key" else place
    for text in (f'[payloads]\n"ear.hear" = {{ file = "{named}" }}\n', event_file(named)):
        (folder / "conformance.toml").write_text(text)
        with pytest.raises(ConfigError, match="`file` must name a file beside it"):
            plan_of(folder)


def event_file(name: str) -> str:
    return f'[[events]]\ntopic = "sound"\nfile = "{name}"\n'


# -- made-up arguments


SCHEMAS: dict[str, Any] = {
    "plain": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}},
    "ref": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer", "minimum": -3, "maximum": 3}},
    },
    "choice": {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 2}]}},
        "required": ["a"],
    },
    "steps": {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5}}},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_made_up_arguments_fit_are_many_and_come_shortest_first(name: str) -> None:
    spec = CapabilitySpec("x.y", input_schema=SCHEMAS[name])
    found = arguments_of(spec, 200, seed=1)
    sizes = [len(json.dumps(one, sort_keys=True)) for one in found]
    assert sizes == sorted(sizes)
    assert len(found) >= 6
    assert all(compiled(SCHEMAS[name]).is_valid(one) for one in found)
    assert found == arguments_of(spec, 200, seed=1)
    assert name == "ref" or found != arguments_of(spec, 200, seed=2)


def test_edges_are_among_the_first() -> None:
    found = arguments_of(CapabilitySpec("x.y", input_schema=SCHEMAS["plain"]), 100, seed=0)
    assert {"a": ""} in found
    assert {"a": "xxxxx"} in found
    refs = arguments_of(CapabilitySpec("x.y", input_schema=SCHEMAS["ref"]), 100, seed=0)
    assert [one["a"] for one in refs] == [0, 1, 2, 3, -1, -2, -3]


@pytest.mark.parametrize(
    ("said", "found", "word"),
    [
        (None, 5, ""),
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, ""),
        ([1, 2], [1, 2, 3], "the output is [1, 2, 3]"),
        ({"a": 1}, {}, "lacks 'a'"),
        ({"a": 1}, [], "is []"),
        ({"a": {"b": 1}}, {"a": {"b": True}}, "the output/a/b is true"),
    ],
)
def test_an_answer_contains_what_the_example_says(said: Any, found: Any, word: str) -> None:
    assert (word in difference(said, found)) if word else not difference(said, found)


# -- guests of a page of WAT


HEARS = '\n[[events.subscribes]]\ntopic = "notes"\n'
REFUSES = """
  (i32.store8 (i32.const 1104) (i32.const 1))
  (i32.store (i32.const 1112) (i32.const 2000)) (i32.store (i32.const 1116) (i32.const 8))
  (i64.store (i32.const 2000) (i64.const 0x5344524F575F4F4E))"""


async def test_a_plugin_that_ends_at_every_event_is_flagged(tmp_path: Path) -> None:
    folder = plugin_of(tmp_path / "tiny", core_guest(handle="unreachable"), HEARS)
    found = (await outcomes(plan_of(folder), "wasm", "events.handled"))["events.handled"]
    assert found.status == "failed"
    assert found.reason.startswith("notes 'sample' ends it: not acknowledged in 3 attempts")
    assert "test/tiny trapped" in found.reason


@pytest.mark.parametrize(
    ("invoke", "code", "told"),
    [
        (REFUSES, "NO_WORDS", ""),
        (REFUSES, "TOO_LONG", "tiny.do with {}: NO_WORDS, and not TOO_LONG"),
        ("", "NO_WORDS", "it must be refused with NO_WORDS, but is answered with null"),
    ],
)
async def test_an_example_may_say_with_which_code_it_is_refused(
    invoke: str, code: str, told: str, tmp_path: Path
) -> None:
    example = f'{{ arguments = {{}}, error = "{code}" }}'
    tool = f'\n[[capability]]\nname = "tiny.do"\neffects = "none"\nexamples = [{example}]\n'
    folder = plugin_of(tmp_path / "tiny", core_guest(invoke), tool)
    found = (await outcomes(plan_of(folder), "wasm", "schema.examples"))["schema.examples"]
    assert found.status == ("failed" if told else "passed")
    assert told in found.reason


async def test_the_code_of_a_plugins_own_error_is_told(tmp_path: Path) -> None:
    tool = '\n[[capability]]\nname = "tiny.do"\neffects = "none"\nexamples = [{ arguments = {} }]\n'
    folder = plugin_of(tmp_path / "tiny", core_guest(REFUSES), tool)
    found = (await outcomes(plan_of(folder), "wasm", "schema.examples"))["schema.examples"]
    assert found.reason.startswith("tiny.do with {}: ActionFailed: NO_WORDS: ")


def test_a_sample_event_may_bring_the_bytes_of_a_file(tmp_path: Path) -> None:
    folder = plugin_of(tmp_path / "tiny", core_guest(), HEARS)
    (folder / "sound.pcm").write_bytes(b"\x00\xff")
    (folder / "conformance.toml").write_text('[[events]]\nfile = "sound.pcm"\n')
    assert [one.event.payload for one in samples_of(plan_of(folder))] == [b"\x00\xff"]
    (folder / "sound.pcm").unlink()
    with pytest.raises(ConfigError, match="must name a file"):
        plan_of(folder)


def test_a_probe_that_must_be_built_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    progress = plugin_test._Progress()
    progress.show("permissions.denied", "grpc")
    progress.show("schema.examples", "wasm")
    assert capsys.readouterr().err == ""
    progress.show("permissions.denied", "wasm")
    assert capsys.readouterr().err == f"{plugin_test.PROBE_IS_BUILT}\n"
    monkeypatch.undo()
    ensure_component(SOURCE.parent, f"{SOURCE.stem}:Probe", default_folder())
    progress.show("quotas.trip", "wasm")
    assert capsys.readouterr().err == ""
