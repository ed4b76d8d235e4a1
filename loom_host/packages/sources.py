"""Where packages come from: a file, a URL, or an index that lists packages by id.

An index is a JSON file: `{"format": 1, "plugins": {"acme/weather": [{"version", "url", "sha256"}]},
"revoked": [...]}`, its urls relative to it. It is not trusted: what it names must still be signed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from loom_sdk.errors import ConfigError, PluginLoadError

from .archive import MOST_BYTES
from .versions import parse_version

MOST_INDEX_BYTES = 32 << 20
TIMEOUT_S = 30.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ID = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*(@[\w.+-]+)?")
Progress = Callable[[int, int], None]
"""Bytes so far, bytes in all (0: unknown)."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A package's bytes and where they came from."""

    data: bytes
    source: str
    revoked: tuple[Any, ...] = ()
    """Statements of revocation that the index carried."""


def fetch(what: str, index: str, progress: Progress = lambda *_: None) -> Fetched:
    """The package that `what` names: a path, a URL, or `publisher/name[@version]` of the index.

    Raises:
        ConfigError: it is none of these, or is not in the index.
        PluginLoadError: it cannot be had, or is not what the index promised.
    """
    if is_url(what):
        return Fetched(read_url(what, MOST_BYTES, progress), what)
    path = Path(what)
    if path.is_file():
        return Fetched(path.read_bytes(), str(path.resolve()))
    if not _ID.fullmatch(what):
        raise ConfigError(f"there is no file {what}, and it is no URL or publisher/name")
    if not index:
        raise ConfigError(f"{what}: say where to look: --index URL-OR-FILE")
    return _from_index(what, index, progress)


def is_url(text: str) -> bool:
    return "://" in text


def _from_index(what: str, index: str, progress: Progress) -> Fetched:
    plugin_id, _, wanted = what.partition("@")
    table = read_index(index)
    listed = table.get("plugins", {}).get(plugin_id, [])
    fitting = [entry for entry in listed if not wanted or entry.get("version") == wanted]
    if not fitting:
        known = ", ".join(str(e.get("version")) for e in listed) or "none"
        raise ConfigError(f"{index} has no {what}; versions of {plugin_id}: {known}")
    entry = max(fitting, key=lambda e: parse_version(str(e.get("version")), index))
    url = urljoin(index, str(entry["url"])) if is_url(index) else str(entry["url"])
    if is_url(url):
        data = read_url(url, MOST_BYTES, progress)
    else:
        url = str((Path(index).parent / url).resolve())
        data = Path(url).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise PluginLoadError(f"{url} is refused: it is not the file that {index} lists (sha256)")
    return Fetched(data, url, tuple(table.get("revoked", ())))


def read_index(index: str) -> dict[str, Any]:
    """Raises ConfigError: it is no index of format 1."""
    data = read_url(index, MOST_INDEX_BYTES) if is_url(index) else _file(index)
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{index} is no JSON") from error
    if not isinstance(table, dict) or table.get("format") != 1:
        raise ConfigError(f"{index} is no index of format 1")
    if not _is_listing(table.get("plugins", {})) or not isinstance(table.get("revoked", []), list):
        raise ConfigError(f"{index} lists plugins otherwise than docs/PACKAGES.md says")
    return table


def _is_listing(plugins: Any) -> bool:
    return isinstance(plugins, dict) and all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("version", "url", "sha256"))
        for entries in plugins.values()
        for entry in (entries if isinstance(entries, list) else [None])
    )


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"index {path}: {error.strerror}") from error


def read_url(url: str, most: int, progress: Progress = lambda *_: None) -> bytes:
    """The body, of at most `most` bytes, over https; over http from this machine only.

    Raises:
        PluginLoadError: it cannot be had, or is larger.
    """
    import httpx

    _check_url(url)
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_S, follow_redirects=True) as answer:
            answer.raise_for_status()
            _check_url(str(answer.url))
            return _body(answer, url, most, progress)
    except httpx.HTTPError as error:
        raise PluginLoadError(f"{url} cannot be had: {error or type(error).__name__}") from error


def _body(answer: Any, url: str, most: int, progress: Progress) -> bytes:
    total, parts, size = int(answer.headers.get("content-length") or 0), [], 0
    for part in answer.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > most:
            raise PluginLoadError(f"{url} is refused: it is larger than {most / 1e6:.0f} MB")
        progress(size, total)
    return b"".join(parts)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(f"{url}: packages are fetched over https only")
