"""`loom bench`: the measurements where there are any, and where to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom_host.cli import bench
from loom_host.cli.main import main


def test_a_group_that_is_none_is_refused_by_the_measurements_themselves(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "nothing"]) == 2
    assert "python -m bench" in capfd.readouterr().err


def test_an_installed_host_tells_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert main(["bench"]) == 1
    assert "make bench" in capsys.readouterr().err
