"""`loom plugin check`: each rule fires where it must and is quiet where it must be."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wasmtime import wat2wasm

from loom_host.cli.main import main
from loom_host.lint import RULES, Finding, check_folder
from loom_host.manifest import TABLES
from loom_host.scaffold import Wish, create
from loom_host.templates import TEMPLATES, Template

from .core_guest import component_of, core_guest
from .docs_runner import blocks_of
from .support import ROOT

MANIFEST = """\
[plugin]
id = "acme/greeter"
version = "0.1.0"
api = "1"
type = "tool"
tier = "grpc"
tiers = ["grpc", "native"]
entry = "greeter_plugin:Greeter"
license = "MIT"

[config]
tone = { type = "string", default = "warm" }

[[capability]]
name = "greeter.greet"
description = "Greet somebody by name."
effects = "none"
tool = true
input = { type = "object", properties = { who = { type = "string" } }, required = ["who"] }
output = { type = "object", properties = { text = { type = "string" } }, required = ["text"] }
examples = [
  { question = "Say hello to Ada.", arguments = { who = "Ada" }, output = { text = "Hello!" } },
]

[[events.subscribes]]
topic = "door"

[events]
publishes = ["greeted"]

[permissions]
invoke = ["weather.*"]
network = ["https://api.example"]
secrets = ["key"]
storage = true
env = ["GREETING"]
devices = ["speaker"]

[quotas]
memory = "64MiB"
deadline_ms = 2000
"""
CODE = '''\
"""Greets."""

import os

from loom_sdk import Context, Event, Plugin, on_event, tool

API = "https://api.example"


class Greeter(Plugin):
    @tool("greeter.greet", effects="none")
    def greet(self, ctx: Context, who: str) -> dict:
        """Greet somebody."""
        ctx.publish("greeted", "greeted", metadata={"who": who})
        ctx.invoke("weather.get@1.2.0", {"place": who})
        ctx.http.get_json(f"{API}/names?q={who}")
        ctx.kv.put(who, ctx.secret("key").encode())
        return {"text": os.environ["GREETING"]}

    @on_event("door")
    def heard(self, ctx: Context, event: Event) -> None:
        ctx.require_grant("devices", "speaker")
'''
WASM = (
    ('tier = "grpc"', 'tier = "wasm"'),
    ('"grpc", "native"', '"wasm"'),
    ('env = ["GREETING"]', ""),
)
NO_ENV = (('os.environ["GREETING"]', '"hello"'),)


def written(
    folder: Path,
    manifest: tuple[tuple[str, str], ...] = (),
    code: tuple[tuple[str, str], ...] = (),
    more: Mapping[str, str] | None = None,
) -> Path:
    """The good plugin above with some texts replaced."""
    texts = {"plugin.toml": MANIFEST, "greeter_plugin.py": CODE}
    for name, changes in (("plugin.toml", manifest), ("greeter_plugin.py", code)):
        for old, new in changes:
            assert old in texts[name], old
            texts[name] = texts[name].replace(old, new, 1)
    for name, text in {**texts, **(more or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def rules(found: list[Finding]) -> list[str]:
    return [item.rule for item in found]


def test_the_good_plugin_has_no_finding(tmp_path: Path) -> None:
    assert check_folder(written(tmp_path)) == []


def test_the_good_plugin_has_no_finding_in_the_wasm_tier(tmp_path: Path) -> None:
    assert check_folder(written(tmp_path, WASM, NO_ENV)) == []


SHORT = ("schema.", "example 1 of greeter.greet")
MANIFEST_FAULTS = [
    ("manifest.unknown-key", 'entry = "gr', 'entri = 1\nentry = "gr', "entri", 8),
    ("manifest.unknown-key", "tool = true", "tools = true", "tools", 18),
    ("manifest.unknown-key", "memory =", "memroy =", "memroy", 40),
    ("manifest.unknown-key", 'topic = "door"', 'topic = "door"\nqoss = "batched"', "qoss", 27),
    ("manifest.unknown-key", "storage = true", "storage = true\nstorages = 1", "storages", 36),
    ("manifest.unknown-key", "{ question =", "{ questoin =", "did you mean 'question'", 21),
    ("manifest.value", 'tier = "grpc"', 'tier = "grcp"', "grcp", 6),
    ("manifest.value", '"acme/greeter"', '"greeter"', "publisher/name", 2),
    ("manifest.value", '["https://api.example"]', '["api.example"]', "api.example", 33),
    ("manifest.value", 'api = "1"', 'api = "9"', "api 9", 1),
    ("manifest.version", '"0.1.0"', '"v1"', "v1", 3),
    ("manifest.version", '"0.1.0"', '"1.02.0"', "1.02.0", 3),
    ("manifest.licence", 'license = "MIT"', "", "license", 1),
    ("quotas.unset", 'memory = "64MiB"', "", "memory", 39),
    ("quotas.unset", "deadline_ms = 2000", "", "deadline_ms", 39),
    ("capability.effects", 'effects = "none"\n', "", "once", 15),
    ("schema.invalid", '"object", properties = { who', '"objekt", properties = { who',
     "input of greeter.greet", 19),
    ("schema.invalid", 'who = { type = "string" }', 'who = { "$ref" = "http://127.0.0.1/x" }',
     "$ref", 19),
    ("schema.invalid", 'tone = { type = "string"', 'tone = { type = "text"', "[config] tone", 12),
    ("schema.default", 'default = "warm"', "default = 3", "tone", 12),
    ("schema.example", '{ who = "Ada" }', "{ who = 3 }", "arguments/who", 22),
    ("schema.example", '{ who = "Ada" }', "{ }", "required", 22),
    ("schema.example", '{ text = "Hello!" }', "{ text = 3 }", "output/text", 22),
    ("entry.missing", "greeter_plugin:", "greeterplugin:", "did you mean 'greeter_plugin'", 8),
    ("entry.missing", '"greeter_plugin:Greeter"', '"greeter.wasm"', "greeter.wasm", 8),
    ("entry.missing", '"greeter_plugin:Greeter"', '"greeter.wasm"', "does not know the sources", 8),
    ("entry.missing", '"greeter_plugin:Greeter"', '["python", "main.py"]', "main.py", 8),
    ("entry.not-built", '"greeter_plugin:Greeter"', '["./greeter"]', "./greeter", 8),
    ("entry.class", ":Greeter", ":Greter", "did you mean 'Greeter'", 8),
    ("code.capability", 'name = "greeter.greet"', 'name = "greeter.meet"', "greeter.meet", 15),
    ("code.subscription", 'topic = "door"', 'topic = "gate"', "gate", 26),
    ("permission.missing", '"greeted"', '"greeted.*"', "'greeted'", 14),
    ("permission.missing", '["weather.*"]', '["wether.*"]', "'weather.get'", 15),
    ("permission.missing", '["https://api.example"]', '["https://api.other"]',
     "GET https://api.example", 16),
    ("permission.missing", '["https://api.example"]', '["POST https://api.example"]',
     "GET https://api.example", 16),
    ("permission.missing", "storage = true", "", "storage", 17),
    ("permission.missing", '["key"]', "[]", "'key'", 17),
    ("permission.missing", '["GREETING"]', "[]", "'GREETING'", 18),
    ("permission.missing", '["speaker"]', "[]", "'speaker'", 22),
    ("permission.unused", '["greeted"]', '["greeted", "left"]', "'left'", 29),
    ("permission.unused", '["weather.*"]', '["weather.*", "notes.add"]', "'notes.add'", 32),
    ("permission.unused", '["https://api.example"]', '["https://api.example", "https://b.example"]',
     "b.example", 33),
    ("permission.unused", '["key"]', '["key", "other"]', "'other'", 34),
    ("permission.unused", '["GREETING"]', '["GREETING", "NAME"]', "'NAME'", 36),
    ("permission.unused", '["speaker"]', '["speaker", "microphone"]', "'microphone'", 37),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "old", "new", "says", "line"), MANIFEST_FAULTS)
def test_a_fault_of_the_manifest_is_found(
    rule: str, old: str, new: str, says: str, line: int, tmp_path: Path
) -> None:
    found = [f for f in check_folder(written(tmp_path, ((old, new),))) if f.rule == rule]
    assert any(says in f"{f.what} {f.fix}" and f.line == line for f in found), found


CODE_FAULTS = [
    ("code.syntax", "def greet(", "def greet(:", "", 12),
    ("entry.class", "(Plugin)", "(dict)", "loom_sdk.Plugin", 8),
    ("code.capability", 'tool("greeter.greet"', 'tool("greeter.hail"', "greeter.hail", 11),
    ("code.subscription", 'on_event("door")', 'on_event("hall.*")', "hall.*", 20),
    ("code.effects", 'effects="none"', 'effects="once"', "effects once", 11),
    ("permission.missing", '"greeted", "greeted"', '"told", "greeted"', "'told'", 14),
    ("permission.missing", 'invoke("weather.get@1.2.0"', 'stream("time.now"', "'time.now'", 15),
    ("permission.missing", "ctx.http.get_json(f", 'ctx.http.request("POST", f"http://x/" + f',
     "POST http://x", 16),
    ("permission.missing", 'ctx.secret("key")', 'ctx.secret("door")', "'door'", 17),
    ("permission.unused", 'ctx.kv.put(who, ctx.secret("key").encode())', "pass", "storage", 35),
    ("import.undeclared", "import os", "import os\nimport extraterrestrial", "extraterrestrial", 4),
    ("model.unknown", "import os", 'import os\nfrom loom_sdk.models import find\nfind("wisper")',
     "wisper", 5),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "old", "new", "says", "line"), CODE_FAULTS)
def test_a_fault_of_the_code_is_found(
    rule: str, old: str, new: str, says: str, line: int, tmp_path: Path
) -> None:
    found = [f for f in check_folder(written(tmp_path, (), ((old, new),))) if f.rule == rule]
    assert any(says in f.what and f.line == line for f in found), found


WASM_FAULTS = [
    ("import socket", "sockets"),
    ("import subprocess", "processes"),
    ("import concurrent.futures", "threads"),
    ("import urllib.request", "sockets"),
    ("import google.protobuf", "compiled for this machine"),
    ("import packaging", "a guest holds what is in the folder"),
    ("from loom_sdk.models import find", "loom_sdk.models is not in a guest"),
    ("from loom_sdk import serve", "loom_sdk.serve is not in a guest"),
]


@pytest.mark.parametrize(("line", "says"), WASM_FAULTS)
def test_an_import_that_no_guest_has_is_found(line: str, says: str, tmp_path: Path) -> None:
    code = (*NO_ENV, ("import os", f"import os\n{line}"))
    [found] = check_folder(written(tmp_path, WASM, code))
    assert (found.rule, found.severity, found.line) == ("import.tier", "error", 4)
    assert says in found.what


def test_a_thread_in_a_guest_is_a_warning_and_a_lock_is_none(tmp_path: Path) -> None:
    lock = (*NO_ENV, ("import os", "import threading\nLOCK = threading.Lock()"))
    assert check_folder(written(tmp_path, WASM, lock)) == []
    thread = (*NO_ENV, ("import os", "import threading\nWORK = threading.Thread(target=print)"))
    [found] = check_folder(written(tmp_path, WASM, thread))
    assert (found.rule, found.severity, found.line) == ("import.tier", "warning", 4)


def test_an_import_that_may_never_happen_is_a_warning(tmp_path: Path) -> None:
    code = (
        *NO_ENV,
        ("import os", "try:\n    import socket\nexcept ImportError:\n    socket = None"),
    )
    [found] = check_folder(written(tmp_path, WASM, code))
    assert (found.rule, found.severity) == ("import.tier", "warning")


def test_what_lies_in_the_folder_or_is_only_for_types_is_no_foreign_import(tmp_path: Path) -> None:
    lines = (
        "from greeter_words import HELLO\nimport vendored.part\nfrom typing import TYPE_CHECKING"
    )
    lines += "\nif TYPE_CHECKING:\n    import socket"
    more = {"greeter_words.py": 'HELLO = "hello"\n', "vendored/part.py": ""}
    code = (*NO_ENV, ("import os", lines))
    assert check_folder(written(tmp_path, WASM, code, more)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", "Extra_Terrestrial>=1\n"),
        ("pyproject.toml", '[project]\ndependencies = ["extra-terrestrial>=1"]\n'),
    ],
)
def test_a_declared_package_is_no_finding(name: str, text: str, tmp_path: Path) -> None:
    code = (("import os", "import os\nimport extra_terrestrial"),)
    assert rules(check_folder(written(tmp_path, (), code))) == ["import.undeclared"]
    assert check_folder(written(tmp_path, (), code, {name: text})) == []


def test_a_tool_needs_a_description_in_one_of_two_places(tmp_path: Path) -> None:
    without = (('description = "Greet somebody by name."\n', ""),)
    assert check_folder(written(tmp_path, without)) == []  # the docstring will do
    undocumented = (('        """Greet somebody."""\n', ""),)
    [found] = check_folder(written(tmp_path, without, undocumented))
    assert (found.rule, found.line) == ("capability.description", 15)


def test_no_tool_no_description(tmp_path: Path) -> None:
    change = (('description = "Greet somebody by name."\neffects = "none"\ntool = true\n', ""),)
    code = (('        """Greet somebody."""\n', ""), (', effects="none"', ""))
    assert check_folder(written(tmp_path, change, code)) == []


def test_an_output_of_an_example_may_be_a_part_of_the_answer(tmp_path: Path) -> None:
    assert check_folder(written(tmp_path, (('{ text = "Hello!" }', "{ }"),))) == []


def test_what_only_the_running_code_knows_is_not_told_of(tmp_path: Path) -> None:
    """A topic, a capability and an address that are computed: neither missing nor unused."""
    code = (
        ('ctx.publish("greeted"', "ctx.publish(who"),
        ('ctx.invoke("weather.get@1.2.0"', "ctx.invoke(who"),
        ('f"{API}/names?q={who}"', "self.config['tone']"),
        ('ctx.secret("key")', "ctx.secret(who)"),
        ('os.environ["GREETING"]', "os.environ[who]"),
    )
    assert check_folder(written(tmp_path, (), code)) == []


def test_a_computed_use_of_what_is_not_asked_for_at_all_is_a_warning(tmp_path: Path) -> None:
    manifest = (('network = ["https://api.example"]', ""),)
    [found] = check_folder(written(tmp_path, manifest, (('f"{API}/names?q={who}"', "who"),)))
    assert (found.rule, found.severity) == ("permission.missing", "warning")


def test_a_context_given_to_foreign_code_keeps_the_check_from_guessing(tmp_path: Path) -> None:
    code = (('ctx.secret("key").encode()', "b''"), ("import os", "import os\nimport json"))
    assert rules(check_folder(written(tmp_path, (), code))) == ["permission.unused"]
    code = (('ctx.secret("key").encode()', "json.dumps(ctx).encode()"), code[1])
    assert check_folder(written(tmp_path, (), code)) == []


def test_what_other_modules_of_the_folder_do_counts(tmp_path: Path) -> None:
    more = {"greeter_door.py": 'def ring(ctx):\n    ctx.publish("bell", "rung")\n'}
    [found] = check_folder(written(tmp_path, (), (), more))
    assert (found.rule, found.place) == ("permission.missing", "greeter_door.py:2")


def test_tests_and_builds_are_not_the_plugin(tmp_path: Path) -> None:
    wrong = "import extraterrestrial\ndef broken(:\n"
    names = ("test_greeter.py", "conftest.py", "tests/t.py", "build/lib.py", "node_modules/x.js")
    assert check_folder(written(tmp_path, (), (), dict.fromkeys(names, wrong))) == []


def test_a_model_that_the_registry_has_is_no_finding(tmp_path: Path) -> None:
    line = "import os\nfrom loom_sdk import models\nmodels.find({})"
    code = (("import os", line.format('"whisper-tiny.en"')),)
    assert check_folder(written(tmp_path, (), code)) == []
    code = (("import os", line.format('"/models/mine"')),)
    assert check_folder(written(tmp_path, (), code)) == []


def test_a_setting_that_names_a_model_is_looked_at_in_the_manifest(tmp_path: Path) -> None:
    code = (("import os", "import os\nfrom loom_sdk.models import find"),
            ("ctx.publish(", 'find(self.config["tone"])\n        ctx.publish('))  # fmt: skip
    [found] = check_folder(written(tmp_path, (), code))
    assert (found.rule, found.place) == ("model.unknown", "plugin.toml:12")


def test_large_folders_and_binaries_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path)
    for number in range(2):
        with (folder / f"data-{number}.txt").open("wb") as file:
            file.write(b"text\n")
            file.truncate(26_000_000)  # holes count as bytes to a package
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(4_900_000)
    assert rules(check_folder(folder)) == ["folder.size"] + ["folder.binary"] * 2
    for path in folder.glob("data-*"):
        path.unlink()
    assert check_folder(folder) == []


def test_a_component_older_than_its_sources_is_told(tmp_path: Path) -> None:
    more = {"build/greeter_plugin.wasm": "\0asm", "build/greeter_plugin.inputs": "old"}
    [found] = check_folder(written(tmp_path, WASM, NO_ENV, more))
    assert (found.rule, found.severity, found.line) == ("entry.not-built", "warning", 8)


def test_an_example_of_a_refusal_may_break_the_schema(tmp_path: Path) -> None:
    refused = ('{ who = "Ada" }, output = { text = "Hello!" }', '{ who = 3 }, error = "NO_NAME"')
    assert check_folder(written(tmp_path, (refused,))) == []


@pytest.mark.parametrize(
    ("wasm", "told"),
    [
        (b"nonsense", "no WebAssembly file"),
        (core_guest(), "is a core module, no component: wrap it"),
        (b"\0asm\x0d\0\x01\0\xff\xff", "no component that wasmtime can compile"),
        (wat2wasm('(component (import "evil:door/open@1.0.0" (instance)))'), "evil:door/open"),
        (wat2wasm("(component)"), "does not export loom:plugin/plugin"),
    ],
)
def test_a_file_that_is_no_component_for_a_host_is_told(
    wasm: bytes, told: str, tmp_path: Path
) -> None:
    entry = ('"greeter_plugin:Greeter"', '"greeter.wasm"')
    folder = written(tmp_path, (*WASM, entry))
    (folder / "greeter.wasm").write_bytes(wasm)
    [found] = [one for one in check_folder(folder) if one.rule.startswith("entry.")]
    assert (found.rule, found.severity, found.line) == ("entry.not-a-component", "error", 8)
    assert told in found.what
    component_of(core_guest(), folder / "greeter.wasm")
    assert not [one for one in check_folder(folder) if one.rule.startswith("entry.")]


def test_a_missing_or_broken_manifest_is_one_finding(tmp_path: Path) -> None:
    assert rules(check_folder(tmp_path)) == ["manifest.unreadable"]
    (tmp_path / "plugin.toml").write_text("[plugin\n")
    assert rules(check_folder(tmp_path)) == ["manifest.unreadable"]


def test_every_unknown_key_is_told_and_the_rest_is_checked_all_the_same(tmp_path: Path) -> None:
    change = (("tool = true", "tools = true"), ("memory =", "memroy ="), ('"0.1.0"', '"v1"'))
    found = rules(check_folder(written(tmp_path, change)))
    assert found == [
        "manifest.version",
        "manifest.unknown-key",
        "quotas.unset",
        "manifest.unknown-key",
    ]


def test_code_too_deep_to_be_read_is_told_and_does_no_harm(tmp_path: Path) -> None:
    deep = {"deep.py": "x = " + "+".join(["1"] * 20_000), "deeper.py": "(" * 3000}
    found = [f for f in check_folder(written(tmp_path, (), (), deep)) if f.rule == "code.syntax"]
    assert {f.file for f in found} >= {"deeper.py"}
    assert len(found) == 2


FIXTURE = [HealthCheck.function_scoped_fixture]
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [(table, key) for table, keys in TABLES.items() for key in keys]
    + [("quotas", "memory"), ("config", "tone"), ("capability", "odd"), ("odd", "odd")]
)


@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
@given(st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=3))
def test_whatever_a_manifest_says_it_is_told_and_not_raised(
    tmp_path: Path, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    folder = written(tmp_path)
    data = tomllib.loads(MANIFEST)
    for (table, key), value in changes:
        holder: Any = data
        for part in filter(None, table.split(".")):
            holder = holder.get(part) if isinstance(holder, dict) else None
            holder = holder[0] if isinstance(holder, list) and holder else holder
        if isinstance(holder, dict):
            holder[key] = value
    (folder / "plugin.toml").write_text(tomlkit.dumps(data))
    for found in check_folder(folder):
        assert found.rule in RULES
        assert found.what
        assert found.fix


OTHERS = {
    "main.js": """\
import { serve } from "./loom.js";
export const plugin = serve({ capabilities: { "greeter.greet": (args, ctx) => {
  // ctx.publish("commented", "x") and "//" in texts
  ctx.publish("%s", "greeted");
  ctx.invoke("weather.get", { url: "https://x" });
  ctx.http("GET", `https://api.example/names?q=${args.who}`);
  return ctx.kv.get(ctx.secret("key"));
} } });
""",
    "main.c": """\
#include "loom.h"
/* loom_new_event(loom_text("commented"), */
bool loom_invoke(const loom_call *call, loom_result *result) {
    loom_event event = loom_new_event(loom_text("%s"), loom_text("x"), LOOM_NONE);
    loom_str value;
    loom_http_reply reply;
    return loom_publish(&event) && loom_secret(loom_text("key"), &value) &&
           loom_call_capability(loom_text("weather.get"), value, LOOM_NONE, result) &&
           loom_kv_put(value, LOOM_NONE) && loom_http(&(loom_http_call){0}, &reply);
}
""",
    "main.zig": """\
const loom = @import("loom");
pub fn invoke(call: loom.Call) !loom.Result {
    // loom.call("commented"
    try loom.publish(.{ .topic = loom.Str.of("%s"), .type = loom.Str.of("x") });
    _ = try loom.secret("key");
    _ = try loom.call("weather.get", "{}", "");
    try loom.kv.put("a", "b");
    _ = try loom.http(.{ .url = loom.Str.of("https://api.example/") });
    return .{};
}
""",
}


def other(folder: Path, name: str, topic: str, *changes: tuple[str, str]) -> list[Finding]:
    """Findings of the good plugin as a guest in another language."""
    manifest = (
        *WASM, ('"greeter_plugin:Greeter"', f'"{name}"'), ('devices = ["speaker"]', ""), *changes,
    )  # fmt: skip
    written(folder, manifest, (), {name: OTHERS[name] % topic})
    (folder / "greeter_plugin.py").unlink()
    return check_folder(folder)


@pytest.mark.parametrize("name", OTHERS)
def test_other_languages_are_read_too_and_told_of_as_warnings(name: str, tmp_path: Path) -> None:
    assert other(tmp_path, name, "greeted") == []
    found = other(tmp_path, name, "told")
    assert [(f.rule, f.severity) for f in found] == [
        ("permission.missing", "warning"),
        ("permission.unused", "warning"),
    ]
    assert found[0].place == f"{name}:4"
    found = other(tmp_path, name, "greeted", ("storage = true", ""), ('"key"', '"lock"'))
    assert {f.what.split(",")[0] for f in found if f.rule == "permission.missing"} == {
        "uses storage", "reads the secret 'key'",
    }  # fmt: skip


def test_a_plugin_on_node_names_its_capabilities(tmp_path: Path) -> None:
    code = 'import { Plugin } from "#loom-sdk";\nconst plugin = new Plugin();\n'
    code += 'plugin.capability("greeter.hail", {}, () => ({}));\n'
    manifest = MANIFEST.partition("[[events.subs")[0].replace(
        '"greeter_plugin:Greeter"', '["node", "main.js"]'
    )
    quotas = '[quotas]\nmemory = "64MiB"\ndeadline_ms = 2000\n'
    (tmp_path / "plugin.toml").write_text(manifest + quotas)
    (tmp_path / "main.js").write_text(code)
    assert rules(check_folder(tmp_path)) == ["code.capability"] * 2
    (tmp_path / "main.js").write_text(code.replace("hail", "greet"))
    assert check_folder(tmp_path) == []


PLUGINS = sorted(
    path.parent
    for place in ("plugins", "examples", "tests/conforming")
    for path in (ROOT / place).rglob("plugin.toml")
    if not {"build", "node_modules"} & set(path.parts)
)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_every_plugin_here_is_clean_of_errors(folder: Path) -> None:
    assert [f for f in check_folder(folder) if f.severity == "error"] == []


@pytest.mark.parametrize("made", TEMPLATES, ids=lambda made: f"{made.lang}-{made.tier}-{made.kind}")
def test_every_template_is_clean(made: Template, tmp_path: Path) -> None:
    """But for its build, and for quotas that it leaves to its author."""
    create(Wish("my-own", made.lang, made.tier, made.kind), tmp_path / "my-own")
    found = rules(check_folder(tmp_path / "my-own"))
    assert set(found) <= {"entry.not-built", "quotas.unset"}


FOUND_BY_READING = {
    "asks-no-invoke": "permission.missing",
    "asks-no-publish": "permission.missing",
    "asks-no-storage": "permission.missing",
    "bad-schema": "schema.invalid",
    "example-does-not-fit": "schema.example",
    "offers-another": "code.capability",
}


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "tests" / "broken").glob("*/")), ids=lambda path: path.name
)
def test_of_the_broken_plugins_those_are_found_whose_fault_can_be_read(folder: Path) -> None:
    errors = [f.rule for f in check_folder(folder) if f.severity == "error"]
    expected = FOUND_BY_READING.get(folder.name)
    assert errors == ([expected] if expected else [])


def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, on a plugin that is as it should be."""
    [block] = [b for b in blocks_of(ROOT / "docs" / "CHECKS.md")
               if "test_plugin_check" in b.detail]  # fmt: skip
    written(tmp_path / "greeter")
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    assert len(lines) == 4
    for words in lines:
        assert main(words[1:]) == 0


def test_the_command_prints_places_and_ends_with_the_right_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(written(tmp_path))
    assert main(["plugin", "check", folder, "--strict"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    written(tmp_path, (('license = "MIT"', ""),))
    assert main(["plugin", "check", folder]) == 0
    assert main(["plugin", "check", folder, "--strict"]) == 1
    capsys.readouterr()
    written(tmp_path, (("tool = true", "tools = true"),))
    assert main(["plugin", "check", folder]) == 1
    told = capsys.readouterr().out
    assert f"{tmp_path}/plugin.toml:18: error manifest.unknown-key" in told
    assert "fix: did you mean 'tool'?" in told


def test_json_has_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, (("tool = true", "tools = true"),))
    assert main(["plugin", "check", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert report["findings"][0] == {
        "file": "plugin.toml", "line": 18, "rule": "manifest.unknown-key", "severity": "error",
        "what": "[capability] has no key 'tools'", "fix": "did you mean 'tool'?",
    }  # fmt: skip


def test_a_folder_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    assert main(["plugin", "check", str(tmp_path / "nowhere")]) == 2


def test_every_rule_is_listed_and_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", "--rules"]) == 0
    told = capsys.readouterr().out
    page = (ROOT / "docs" / "CHECKS.md").read_text()
    for rule, (severity, _) in RULES.items():
        assert rule in told
        assert f"| `{rule}` | {severity} |" in page, rule
