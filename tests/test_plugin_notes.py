"""notes, in the sandbox, with the host's storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_sdk.errors import ActionFailed, InvalidArguments, PermissionDenied, QuotaExceeded

from .support import FakePort, load_plugin, run_capability
from .wasm_plugins import wasm_host

ALLOW = {"provide": ["notes.*"], "storage": True}


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Host]:
    async with wasm_host(tmp_path, "notes", allow=ALLOW) as host:
        yield host


async def ask(host: Host, name: str, **arguments: Any) -> Any:
    return (await host.invoke(f"notes.{name}", arguments)).output


def texts(answer: Any) -> list[str]:
    return [note["text"] for note in answer["notes"]]


async def test_notes_are_kept_listed_found_and_deleted(notes: Host) -> None:
    first = await ask(notes, "add", text="  Buy Milk ", tags=["Shop", "shop", " "])
    assert first["note"]["id"] == 1
    assert first["note"]["tags"] == ["shop"]
    assert first["note"]["created"] > 1_700_000_000
    await ask(notes, "add", text="Call Zoë about the milk bill")
    await ask(notes, "add", text="Water the plants", tags=["home"])
    assert texts(await ask(notes, "list")) == [
        "Water the plants", "Call Zoë about the milk bill", "Buy Milk",
    ]  # fmt: skip
    assert texts(await ask(notes, "list", tag="SHOP")) == ["Buy Milk"]
    assert texts(await ask(notes, "search", query="MILK")) == [
        "Call Zoë about the milk bill", "Buy Milk",
    ]  # fmt: skip
    assert texts(await ask(notes, "search", query="milk ZOË")) == ["Call Zoë about the milk bill"]
    assert texts(await ask(notes, "search", query="home")) == ["Water the plants"]
    assert (await ask(notes, "delete", id=1))["deleted"] is True
    assert (await ask(notes, "delete", id=1))["deleted"] is False
    answer = await ask(notes, "search", query="buy")
    assert (answer["total"], answer["speech"]) == (0, "0 notes: none.")


async def test_a_number_is_never_used_twice(notes: Host) -> None:
    for expected in (1, 2, 3):
        assert (await ask(notes, "add", text="x"))["note"]["id"] == expected
        await ask(notes, "delete", id=expected)


async def test_limits_count_what_is_left_out(notes: Host) -> None:
    for number in range(12):
        await ask(notes, "add", text=f"note {number}")
    answer = await ask(notes, "list", limit=2)
    assert (texts(answer), answer["total"]) == (["note 11", "note 10"], 12)
    assert answer["speech"] == "12 notes: note 11; note 10."


@pytest.mark.parametrize("text", ["", "   ", "x" * 4001])
async def test_a_note_that_is_none_is_refused(notes: Host, text: str) -> None:
    with pytest.raises((ActionFailed, InvalidArguments)):
        await ask(notes, "add", text=text)
    assert (await ask(notes, "list"))["total"] == 0


async def test_notes_outlive_the_host(tmp_path: Path) -> None:
    from loom_host.storage import RocksStore

    def table() -> Any:
        return wasm_host(tmp_path, "notes", store=RocksStore(tmp_path / "store"), allow=ALLOW)

    async with table() as host:
        await ask(host, "add", text="still here")
    async with table() as host:
        assert texts(await ask(host, "list")) == ["still here"]


async def test_storage_is_a_grant_and_has_a_quota(tmp_path: Path) -> None:
    async with wasm_host(tmp_path, "notes", allow={"provide": ["notes.*"]}) as host:
        with pytest.raises(
            PermissionDenied, match=r"\[plugins.notes\]\nallow = .*storage = \[\"own\"\]"
        ):
            await ask(host, "add", text="x")
    full = {"storage_bytes": 1000}
    async with wasm_host(tmp_path, "notes", allow=ALLOW, quotas=full) as host:
        await ask(host, "add", text="fits")
        with pytest.raises(QuotaExceeded, match="storage_bytes"):
            await ask(host, "add", text="x" * 1000)
        assert texts(await ask(host, "list")) == ["fits"]


def test_a_note_whose_storing_failed_leaves_a_gap() -> None:
    plugin, port = load_plugin("wasm", "notes"), FakePort()
    run_capability(plugin, "notes.add", {"text": "a"}, port=port)
    del port.store["note/0000000001"]
    note = run_capability(plugin, "notes.add", {"text": "b"}, port=port).output
    assert note["note"]["id"] == 2
