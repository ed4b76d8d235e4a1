"""The committed stubs are what `python -m tools.proto` makes of proto/plugin.proto."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import proto


def test_committed_stubs_are_those_of_the_proto() -> None:
    assert proto.drift() == []


def test_check_writes_nothing_and_fails_on_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proto, "drift", lambda: ["plugin_pb2.py"])
    monkeypatch.setattr(proto, "TARGET", tmp_path)
    assert proto.main(["--check"]) == 1
    assert "run `make proto`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_writes_every_stub_with_a_relative_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proto, "TARGET", tmp_path)
    assert proto.main([]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(proto.NAMES)
    assert proto.drift(tmp_path) == []
    assert "\nfrom . import plugin_pb2" in (tmp_path / "plugin_pb2_grpc.py").read_text()
    (tmp_path / "plugin_pb2.py").write_text("stale")
    assert proto.drift(tmp_path) == ["plugin_pb2.py"]
