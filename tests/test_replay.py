"""`loom events record` and `replay`: a session goes through a plugin again, and is compared."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host import Host, load_settings
from loom_host.cli import main as cli
from loom_host.control import ControlServer, ask
from loom_host.discovery import code_hash
from loom_host.replay import Outcome, differences, replay, replay_settings
from loom_host.storage.record import Record, Recorded, event_line, first_line, plain_event
from loom_sdk import Event
from loom_sdk.errors import ConfigError

from .hosting import PLUGINS, native_host, until

NOTEBOOK = {"allow": {"subscribe": ["notes.*"], "publish": ["notebook"], "storage": True}}
CONFIG = f"""
[host]
plugin_paths = ["{PLUGINS}"]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"
stop_grace_ms = 500

[plugins.notebook]
trusted = true
code = "{code_hash(PLUGINS / "notebook")}"
allow = {{ subscribe = ["notes.*"], publish = ["notebook"], storage = true }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "loom.toml"
    path.write_text(CONFIG)
    return path


async def note(host: Host, text: str, **metadata: str) -> None:
    await host.bus.publish("notes.day", Event("note", text.encode(), metadata, source="ann"))


async def session(host: Host, *texts: str) -> Record:
    """Recorded over the control socket while these notes are published."""
    rows = ask(host.settings.host.runtime_dir, {"op": "storage.record", "topics": ["n.>", ">"]})
    started = (await anext(rows))["started_ms"]
    for text in texts:
        await note(host, text)
    record = Record(started, (">",), [])
    while len(record.events) < 2 * len(texts):
        row = await anext(rows)
        if row["event"]["topic"] in ("notes.day", "notebook"):
            record.events.append(Recorded(row["after_ms"], event_of_row(row)))
    await rows.aclose()  # type: ignore[attr-defined]  # it is an async generator
    return record


def event_of_row(row: dict[str, Any]) -> Event:
    from loom_host.storage.record import event_of

    return event_of(row["event"])


@asynccontextmanager
async def notebook_host(folder: Path) -> AsyncIterator[Host]:
    async with native_host(folder, notebook=NOTEBOOK) as host:
        server = ControlServer(host)
        await server.start()
        try:
            yield host
        finally:
            await server.aclose()


async def again(config: Path, record: Record, **options: Any) -> Outcome:
    settings = replay_settings(load_settings(config), ["notebook"], config.parent / "replayed")
    options = {"fast": True, "settle_s": 0.2} | options
    return await replay(settings, record, ["notebook"], **options)


async def test_a_session_through_the_same_plugin_differs_in_nothing(
    tmp_path: Path, config: Path
) -> None:
    async with notebook_host(tmp_path) as host:
        record = await session(host, "one", "two", "three")
    sources = [entry.event.source for entry in record.events]
    assert sorted(sources) == ["ann"] * 3 + ["notebook"] * 3
    outcome = await again(config, record)
    assert (outcome.given, outcome.compared, outcome.differences) == (3, 3, [])
    assert not (tmp_path / "data" / "store").exists(), "a replay keeps nothing"


async def test_what_differs_is_told_event_by_event(tmp_path: Path, config: Path) -> None:
    async with notebook_host(tmp_path) as host:
        record = await session(host, "one", "two")
    mine = [n for n, entry in enumerate(record.events) if entry.event.source == "notebook"]
    entry = record.events[mine[0]]
    record.events[mine[0]] = replace(entry, event=replace(entry.event, payload=b"uno"))
    outcome = await again(config, record)
    (found,) = outcome.differences
    assert (found.kind, found.topic, found.number) == ("changed", "notebook", 1)
    assert found.fields == ("payload",)
    assert found.recorded is not None
    assert found.replayed is not None
    assert (found.recorded.payload, found.replayed.payload) == (b"uno", b"one")
    del record.events[mine[1]]
    assert [d.kind for d in (await again(config, record)).differences] == ["changed", "extra"]


async def test_metadata_that_is_ignored_makes_no_difference(tmp_path: Path, config: Path) -> None:
    async with notebook_host(tmp_path) as host:
        record = await session(host, "one")
    record.events = [
        replace(e, event=replace(e.event, metadata={**e.event.metadata, "number": "9"}))
        if e.event.source == "notebook"
        else e
        for e in record.events
    ]
    assert len((await again(config, record)).differences) == 1
    assert (await again(config, record, ignore=["number"])).differences == []


async def test_a_replay_keeps_the_recorded_pauses_unless_it_is_fast(config: Path) -> None:
    events = [Event("note", b"a", source="ann", topic="notes.day") for _ in range(2)]
    record = Record(0, (">",), [Recorded(0, events[0]), Recorded(600, events[1])])
    took = []
    for fast in (False, True):
        outcome, began = None, time.monotonic()
        outcome = await again(config, record, fast=fast, settle_s=0.05)
        took.append(time.monotonic() - began)
        assert [d.kind for d in outcome.differences] == ["extra", "extra"]
    assert took[0] >= 0.6


async def test_only_topics_that_were_recorded_are_compared(config: Path) -> None:
    event = Event("note", b"a", source="ann", topic="notes.day")
    record = Record(0, ("notes.*",), [Recorded(0, event)])
    assert (await again(config, record)).differences == []


async def test_a_plugin_that_does_not_run_is_told(config: Path) -> None:
    with pytest.raises(ConfigError, match="nobody"):
        await replay(load_settings(config), Record(0, (">",), []), ["nobody"], fast=True)


PUBLISHED = st.lists(
    st.builds(
        Event, type=st.just("e"), payload=st.sampled_from([b"1", b"2", b"3"]),
        topic=st.sampled_from(["a", "b"]),
    ),
    max_size=6,
)  # fmt: skip


@given(PUBLISHED, PUBLISHED)
def test_differences_turn_the_one_into_the_other(old: list[Event], new: list[Event]) -> None:
    found = differences(old, new)
    for topic in ("a", "b"):
        was = [event.payload for event in old if event.topic == topic]
        here = [d for d in found if d.topic == topic]
        for item in sorted(here, key=lambda d: d.number, reverse=True):
            if item.kind == "missing":
                del was[item.number - 1]
            elif item.kind == "changed" and item.replayed is not None:
                was[item.number - 1] = item.replayed.payload
        for item in (d for d in here if d.kind == "extra" and d.replayed is not None):
            assert item.replayed is not None
            was.insert(item.number - 1, item.replayed.payload)
        assert was == [event.payload for event in new if event.topic == topic]
    assert bool(found) == any(
        [e.payload for e in old if e.topic == t] != [e.payload for e in new if e.topic == t]
        for t in ("a", "b")
    )


# -- the command line


def file_with(path: Path, *payloads: bytes, cut: bool = False) -> Path:
    events = [Event("note", b"one", source="ann", topic="notes.day")]
    about = {"topic": "notes.day", "number": "1"}
    events += [
        Event("note", payload, about, source="notebook", topic="notebook", tags=("kept",))
        for payload in payloads
    ]
    lines = [event_line(n, plain_event(event)) for n, event in enumerate(events)]
    path.write_text("".join([first_line(0, [">"]), *lines, '{"after' if cut else ""]))
    return path


def test_replay_ends_with_1_where_it_differs(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", str(config), "events", "replay", "--through", "notebook", "--fast"]
    words += ["--settle-ms", "150"]
    same = file_with(config.parent / "same.jsonl", b"one", cut=True)
    assert cli.main([*words, str(same)]) == 0
    said = capsys.readouterr()
    assert "1 events through notebook: of 1 recorded events 0 differ" in said.out
    assert "its last line is left out" in said.err
    other = file_with(config.parent / "other.jsonl", b"two")
    assert cli.main([*words, str(other)]) == 1
    out = capsys.readouterr().out
    assert "notebook #1 changed: payload\n  - payload=b'two'\n  + payload=b'one'" in out
    assert cli.main([*words, "--json", str(other)]) == 1
    (row,) = json.loads(capsys.readouterr().out)["differences"]
    assert (row["kind"], row["fields"], row["recorded"]["payload"]) == (
        "changed",
        ["payload"],
        "dHdv",
    )


def test_replay_names_what_is_wrong(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_with(config.parent / "same.jsonl", b"one")
    words = ["-c", str(config), "events", "replay"]
    assert cli.main([*words, "--through", "nobody", str(file)]) == 1
    assert "[plugins.nobody]" in capsys.readouterr().err
    assert cli.main([*words, str(config)]) == 1
    assert "no record of events" in capsys.readouterr().err
    assert cli.main([*words, "nowhere.jsonl"]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err


async def test_record_writes_what_happens_until_it_is_interrupted(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "session.jsonl"
    async with notebook_host(tmp_path) as host:
        recorder = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loom_host.cli.main", "-c", str(config), "events", "record",
            str(file), "--topics", "notes.*", "notebook", stdout=subprocess.PIPE,
        )  # fmt: skip
        await until(file.exists, 30)
        await until(lambda: file.read_bytes().count(b"\n") == 1, 30)
        await note(host, "one")
        await host.bus.publish("other", Event("e"))
        await until(lambda: file.read_bytes().count(b"\n") == 3)
        recorder.send_signal(signal.SIGINT)
        out, _ = await recorder.communicate()
        assert file.stat().st_mode & 0o077 == 0
        assert (recorder.returncode, out) == (0, f"recorded 2 events to {file}\n".encode())
    words = ["-c", str(config), "events", "replay", "--through", "notebook", "--fast", str(file)]
    assert await asyncio.to_thread(cli.main, words) == 0
    assert "0 differ" in capsys.readouterr().out


def test_record_needs_a_host_and_a_new_file(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config.parent / "session.jsonl"
    words = ["-c", str(config), "events", "record", str(file)]
    assert cli.main(words) == 1
    assert "no host runs at" in capsys.readouterr().err
    assert not file.exists()
    file.write_text("precious")
    assert cli.main(words) == 1
    assert file.read_text() == "precious"


async def test_a_topic_may_be_called_as_the_commands_are(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with notebook_host(tmp_path) as host:
        words = ["-c", str(config), "events", "--count", "1", "record"]
        showing = asyncio.create_task(asyncio.to_thread(cli.main, words))
        await until(lambda: any(s.name == "cli" for s in host.bus.subscriptions()))
        await host.bus.publish("record", Event("e"))
        assert await showing == 0
    assert capsys.readouterr().out.startswith("record  e  from host")
