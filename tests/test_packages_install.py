"""Installing: whose key it is, what is asked for, what was seen before, and what lies on disk."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loom_host import Host, load_settings
from loom_host.agents.kept import Kept
from loom_host.packages import pack
from loom_host.packages.trust import revocation
from loom_host.settings import AgentSettings
from loom_host.storage import agent_state_key, store_at
from loom_sdk.errors import PluginLoadError

from .parcels import greeter, key, parcel
from .test_cli import Loom

CONFIG = """
[host]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"

[telemetry]
log_level = "error"

[plugins.wake-phrase]
allow = { provide = ["wake.match"] }
"""
READS = 'secrets = ["ACME_KEY"]\nnetwork = ["https://api.acme.example"]'


@pytest.fixture
def loom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Loom:
    path = tmp_path / "loom.toml"
    path.write_text(CONFIG)
    return Loom(path, capsys)


def consent(monkeypatch: pytest.MonkeyPatch, answer: str = "y") -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)


def lock_of(loom: Loom) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads(
        (loom.config.parent / "loom.lock").read_bytes()
    )
    return content


async def _start(loom: Loom) -> None:
    async with Host(load_settings(loom.config)):
        pass


# -- consent


async def test_what_is_installed_with_consent_runs_and_is_found_by_the_host(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = parcel(tmp_path, key(tmp_path))
    consent(monkeypatch)
    said = loom("plugin", "install", str(package))
    assert "installed greeter 1.0.0" in said
    assert "signed by acme with key" in loom.err
    assert "met for the first time" in loom.err
    assert "licence: MIT" in loom.err
    async with Host(load_settings(loom.config)) as host:
        answer = await host.invoke("greeter.hello", {"name": "Ada"})
    assert answer.output == {"text": "Hello, Ada!"}


def test_without_consent_nothing_is_installed(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = str(parcel(tmp_path, key(tmp_path), permissions=READS))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    loom("plugin", "install", package, code=1)
    assert "nobody is here to consent" in loom.err
    loom("plugin", "install", package, "--yes", code=1)
    assert "asks for more than loom.lock has" in loom.err
    consent(monkeypatch, "")
    loom("plugin", "install", package, code=1)
    assert "you did not consent" in loom.err
    assert "can read the secrets: ACME_KEY" in loom.err
    assert "can send to: api.acme.example" in loom.err
    assert not (tmp_path / "loom.lock").exists()
    assert not (tmp_path / "data" / "installed").exists()


def test_an_update_that_asks_for_more_asks_again(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = key(tmp_path)
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, signer)))
    same = str(parcel(tmp_path, signer, version="1.1.0"))
    more = str(parcel(tmp_path, signer, version="1.2.0", permissions=READS))
    assert "1.1.0" in loom("plugin", "install", same, "--yes")
    loom("plugin", "install", more, "--yes", code=1)
    assert "asks for more than loom.lock has (network: https://api.acme.example" in loom.err
    assert lock_of(loom)["highest"] == {"acme/greeter": "1.1.0"}
    loom("plugin", "install", more)
    assert "new since 1.1.0: secrets ACME_KEY" in loom.err
    assert len(list((tmp_path / "data" / "installed").iterdir())) == 1


# -- trust


def test_another_publishers_key_is_refused(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path))))
    stranger = key(tmp_path, "stranger")
    package = str(parcel(tmp_path, stranger, version="2.0.0"))
    loom("plugin", "install", package, code=1)
    assert "is pinned to acme/; ask the publisher" in loom.err
    loom("plugin", "trust", "acme", stranger.public)
    loom("plugin", "install", package)


def test_a_rotated_key_is_taken_and_the_old_one_no_more(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = key(tmp_path)
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, old)))
    late = parcel(tmp_path, old, version="3.0.0")
    printed = loom.json("plugin", "key", "rotate", "--key", str(tmp_path / "key"))
    assert printed["key"] != old.public
    out = tmp_path / "new.loom"
    source = str(greeter(tmp_path / "two", version="2.0.0"))
    loom("plugin", "pack", source, "--key", str(tmp_path / "key"), "-o", str(out))
    loom("plugin", "install", str(out))
    loom("plugin", "install", str(late), code=1)
    assert "is pinned to acme/" in loom.err


async def test_a_revoked_key_is_refused_and_what_it_signed_does_not_start(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = key(tmp_path)
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, signer)))
    statement = tmp_path / "revoked.json"
    statement.write_text(json.dumps([revocation(signer, "stolen")]))
    assert loom.json("plugin", "revoked", str(statement))["installed_with_them"] == ["greeter"]
    loom("plugin", "install", str(parcel(tmp_path, signer, version="1.1.0")), code=1)
    assert "is revoked (stolen)" in loom.err
    with pytest.raises(PluginLoadError, match=r"is revoked \(stolen\); `loom plugin remove"):
        await _start(loom)
    forged = revocation(signer, "stolen") | {"key": key(tmp_path, "other").public}
    statement.write_text(json.dumps([forged]))
    loom("plugin", "revoked", str(statement), code=1)
    assert "not signed by the key that it names" in loom.err


def test_an_older_version_than_was_seen_is_refused_even_after_a_removal(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = key(tmp_path)
    consent(monkeypatch)
    old = str(parcel(tmp_path, signer, version="1.9.0"))
    loom("plugin", "install", str(parcel(tmp_path, signer, version="1.10.0")))
    loom("plugin", "install", old, code=1)
    assert "version 1.10.0 was seen already" in loom.err
    loom("plugin", "remove", "greeter")
    loom("plugin", "install", old, code=1)
    loom("plugin", "install", old, "--downgrade")


def test_two_publishers_cannot_share_a_name(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path))))
    other = parcel(tmp_path, key(tmp_path, "b"), plugin_id="evil/greeter")
    loom("plugin", "install", str(other), code=1)
    assert "of acme/greeter is installed" in loom.err


# -- what lies on disk


@pytest.mark.parametrize("change", ["edit", "add", "delete", "mode", "description"])
async def test_a_changed_plugin_does_not_start(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    consent(monkeypatch)
    folder = Path(loom.json("plugin", "install", str(parcel(tmp_path, key(tmp_path))))["folder"])
    code, description = folder / "greeter.py", folder / "LOOM" / "package.json"
    code.chmod(0o644)
    description.chmod(0o644)
    if change == "edit":
        code.write_text(code.read_text() + "\n")
    elif change == "add":
        (folder / "extra.py").write_text("")
    elif change == "delete":
        code.unlink()
    elif change == "mode":
        code.chmod(0o755)
    else:
        description.write_text(description.read_text().replace("Says", "Said"))
    with pytest.raises(PluginLoadError, match="greeter is not what was installed: "):
        await _start(loom)
    await asyncio.to_thread(loom, "plugin", "remove", "greeter")
    async with Host(load_settings(loom.config)) as host:
        assert set(host.plugins) == {"wake-phrase"}
    assert list((tmp_path / "data" / "installed").iterdir()) == []


def test_an_own_table_may_allow_nothing_of_what_was_consented_to(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path), permissions="storage = true")))
    granted = load_settings(loom.config).plugins["greeter"].allow
    assert granted["provide"] == ("greeter.hello",)
    assert granted["storage"]
    loom.config.write_text(CONFIG + "\n[plugins.greeter]\nallow = {}\n")
    assert not any(load_settings(loom.config).plugins["greeter"].allow.values())


def test_the_lock_files_grants_are_for_the_installed_files_alone(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path), permissions="storage = true")))
    (folder,) = (tmp_path / "data" / "installed").iterdir()
    folder.rename(tmp_path / "gone")
    loom.config.write_text(CONFIG + "\n[plugins.greeter]\nrestarts = 1\n")
    assert load_settings(loom.config).plugins["greeter"].allow == {}


def test_a_package_cannot_take_the_name_of_one_of_looms_own(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    package = parcel(tmp_path, key(tmp_path), plugin_id="acme/weather")
    loom("plugin", "install", str(package), code=1)
    assert "comes with Loom (loom/weather)" in loom.err
    assert not (tmp_path / "loom.lock").exists()


def test_a_removal_takes_the_agents_of_the_plugin_too(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path))))
    Kept(tmp_path / "data").put("eve", AgentSettings(plugin="greeter"), True)
    Kept(tmp_path / "data").put("bob", AgentSettings(plugin="other"), True)
    store = store_at(tmp_path / "data")
    for name in ("eve", "bob"):
        store.put(agent_state_key(name), b"secret thoughts of " + name.encode())
    store.close()
    loom("plugin", "remove", "greeter")
    assert list(Kept(tmp_path / "data").load()) == ["bob"]
    store = store_at(tmp_path / "data")
    assert store.get(agent_state_key("eve")) is None
    assert store.get(agent_state_key("bob"))
    store.close()


async def test_a_removal_takes_what_the_plugin_kept_and_waits_for_no_host(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(monkeypatch)
    package = parcel(tmp_path, key(tmp_path), permissions="storage = true")
    loom("plugin", "install", str(package))
    async with Host(load_settings(loom.config)) as host:
        host.store.put(b"kv\0acme/greeter\0diary", b"secret thoughts")
        host.store.put(b"kv\0other/plugin\0key", b"stays")
        await asyncio.to_thread(loom, "plugin", "remove", "greeter", code=1)
        assert "greeter" in load_settings(loom.config).plugins
    await asyncio.to_thread(loom, "plugin", "remove", "greeter")
    async with Host(load_settings(loom.config)) as host:
        assert host.store.get(b"kv\0acme/greeter\0diary") is None
        assert host.store.get(b"kv\0other/plugin\0key") == b"stays"


def test_the_lock_file_brings_everything_back(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = parcel(tmp_path, key(tmp_path))
    consent(monkeypatch)
    loom("plugin", "install", str(package))
    (folder,) = (tmp_path / "data" / "installed").iterdir()
    folder.rename(tmp_path / "gone")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert loom.json("plugin", "install") == {"restored": ["greeter"]}
    assert (folder / "greeter.py").is_file()
    assert loom.json("plugin", "install") == {"restored": []}
    folder.rename(tmp_path / "gone2")
    package.write_bytes(pack(greeter(tmp_path / "other", version="9.0.0"), key(tmp_path)))
    loom("plugin", "install", code=1)
    assert "loom.lock has another acme/greeter 1.0.0" in loom.err


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "/home"), ("id", "../../x"), ("id", ""), ("id", "acme/other"), ("digest", "../x")],
)
def test_a_lock_file_that_leads_elsewhere_is_refused(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, key(tmp_path))))
    content = lock_of(loom)
    content["plugins"]["greeter"][field] = value  # type: ignore[index]
    (tmp_path / "loom.lock").write_text(json.dumps(content))
    loom("plugin", "remove", "greeter", code=1)
    assert "is damaged" in loom.err
    assert len(list((tmp_path / "data" / "installed").iterdir())) == 1


def test_a_revoked_key_cannot_hand_over(
    loom: Loom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (key(tmp_path, name) for name in "abc")
    consent(monkeypatch)
    loom("plugin", "install", str(parcel(tmp_path, a)))
    steps = (a.hand_over(b.public), b.hand_over(c.public))
    stolen = tmp_path / "stolen.loom"
    stolen.write_bytes(pack(greeter(tmp_path / "two", version="2.0.0"), c, steps))
    statement = tmp_path / "revoked.json"
    statement.write_text(json.dumps([revocation(b, "leaked")]))
    loom("plugin", "revoked", str(statement))
    loom("plugin", "install", str(stolen), code=1)
    assert "which handed over to the one that signed it, is revoked (leaked)" in loom.err
    loom("plugin", "trust", "acme", c.public)
    loom("plugin", "install", str(stolen))


def test_a_damaged_lock_file_is_told(loom: Loom, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "plugins": {"a": 1}}'):
        (tmp_path / "loom.lock").write_text(text)
        loom("plugin", "list", code=1)
        assert "loom.lock" in loom.err


# -- from elsewhere


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A loopback server of the files in `tmp_path / "www"`."""
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_packages_come_from_urls_and_indexes(
    loom: Loom, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, www = key(tmp_path), tmp_path / "www"
    listed = []
    for version in ("1.9.0", "1.10.0"):
        data = parcel(tmp_path, signer, version=version).read_bytes()
        (www / f"g-{version}.loom").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        listed.append({"version": version, "url": f"g-{version}.loom", "sha256": digest})
    index = www / "index.json"
    index.write_text(json.dumps({"format": 1, "plugins": {"acme/greeter": listed}}))
    consent(monkeypatch)
    loom("plugin", "install", f"{served}/g-1.9.0.loom")
    where = ("--index", f"{served}/index.json")
    assert "1.10.0" in loom("plugin", "install", "acme/greeter", *where)
    loom("plugin", "install", "acme/greeter@1.5.0", *where, code=1)
    assert "versions of acme/greeter: 1.9.0, 1.10.0" in loom.err
    (www / "g-1.10.0.loom").write_bytes(b"another file")
    loom("plugin", "install", "acme/greeter", *where, code=1)
    assert "it is not the file that" in loom.err
    revoked = [revocation(signer, "lost")]
    index.write_text(
        json.dumps({"format": 1, "plugins": {"acme/greeter": listed[:1]}, "revoked": revoked})
    )
    loom("plugin", "install", "acme/greeter", *where, "--downgrade", code=1)
    assert "is revoked (lost)" in loom.err
    assert signer.public in lock_of(loom)["revoked"]  # and stays so
    listings: list[object] = [[], {"acme/greeter": [1]}, {"acme/greeter": [{"version": "1"}]}]
    for wrong in listings:
        index.write_text(json.dumps({"format": 1, "plugins": wrong}))
        loom("plugin", "install", "acme/greeter", *where, code=1)
        assert "lists plugins otherwise" in loom.err


def test_what_cannot_be_had_is_told(loom: Loom, served: str, tmp_path: Path) -> None:
    for what, told in (
        ("http://packages.example/x.loom", "over https only"),
        (f"{served}/missing.loom", "404"),
        ("no-such-file.loom", "no URL or publisher/name"),
        ("acme/greeter", "say where to look: --index"),
    ):
        loom("plugin", "install", what, code=1)
        assert told in loom.err, loom.err
