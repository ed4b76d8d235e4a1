"""Secrets from the environment, a private file or a command; redacted wherever they might show."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from loom_sdk.errors import ConfigError

from .settings import SecretSettings

COMMAND_TIMEOUT_S = 10.0


class Secrets:
    """Resolves a secret once and tells `on_secret` its text, so that logs can hide it."""

    def __init__(
        self, settings: Mapping[str, SecretSettings], on_secret: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._on_secret = on_secret
        self._values: dict[str, str] = {}

    async def get(self, name: str) -> str:
        """Raises ConfigError where it is not set or its source fails."""
        if name not in self._values:
            value = await self._read(name)
            self._on_secret(value)
            self._values[name] = value
        return self._values[name]

    async def _read(self, name: str) -> str:
        source = self._settings.get(name)
        if source is None:
            line = f'[secrets.{name}] env = "..."'
            raise ConfigError(f"no secret {name!r}: add {line} to loom.toml")
        if source.env:
            value = os.environ.get(source.env)
            if value is None:
                raise ConfigError(f"secret {name!r}: environment variable {source.env} is not set")
            return value
        if source.file:
            return await asyncio.to_thread(_read_file, name, source.file)
        return await _run(name, source.command)


def _read_file(name: str, file: str) -> str:
    path = Path(file).expanduser()
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"secret {name!r}: {path} is open to others: run chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"secret {name!r}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"secret {name!r}: {path} is not UTF-8 text") from error


async def _run(name: str, command: tuple[str, ...]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise ConfigError(f"secret {name!r}: {command[0]}: {error.strerror}") from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise ConfigError(f"secret {name!r}: {command[0]} gave no answer") from error
    if process.returncode:
        raise ConfigError(f"secret {name!r}: {command[0]} ended with {process.returncode}")
    try:
        return output.decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"secret {name!r}: {command[0]} gave what is not UTF-8 text") from error
