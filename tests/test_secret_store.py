"""Secrets: three sources, each told when it fails, and each value handed to the redactor once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loom_host import secret_store
from loom_host.secret_store import Secrets
from loom_host.settings import SecretSettings
from loom_sdk.errors import ConfigError


async def get(source: SecretSettings) -> str:
    return await Secrets({"token": source}, lambda _: None).get("token")


def python(code: str) -> SecretSettings:
    return SecretSettings(command=(sys.executable, "-c", code))


async def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret")
    assert await get(SecretSettings(env="A_TOKEN")) == "s3cret"
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(ConfigError, match="A_TOKEN is not set"):
        await get(SecretSettings(env="A_TOKEN"))


async def test_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    source = SecretSettings(file=str(path))
    assert await get(source) == "s3cret"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        await get(source)
    path.chmod(0o600)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        await get(source)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        await get(source)


async def test_from_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await get(python("print('s3cret')")) == "s3cret"
    with pytest.raises(ConfigError, match="ended with 3"):
        await get(python("raise SystemExit(3)"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        await get(python("import sys; sys.stdout.buffer.write(b'\\xff')"))
    with pytest.raises(ConfigError, match="No such file"):
        await get(SecretSettings(command=("/no/such/program",)))
    monkeypatch.setattr(secret_store, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(ConfigError, match="gave no answer"):
        await get(python("import time; time.sleep(9)"))


async def test_an_unknown_secret_names_the_line_to_add() -> None:
    with pytest.raises(ConfigError, match=r"add \[secrets.other\] env = "):
        await Secrets({}, lambda _: None).get("other")


async def test_it_is_read_and_redacted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "first")
    hidden: list[str] = []
    secrets = Secrets({"token": SecretSettings(env="A_TOKEN")}, hidden.append)
    assert await secrets.get("token") == "first"
    monkeypatch.setenv("A_TOKEN", "second")
    assert await secrets.get("token") == "first"
    assert hidden == ["first"]
