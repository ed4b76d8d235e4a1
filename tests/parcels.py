"""Packages for tests: a small plugin's folder, keys, and archives as nobody should write them."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

from loom_host.packages import SigningKey, pack

MANIFEST = """
[plugin]
id = "{id}"
version = "{version}"
api = "1"
type = "tool"
tier = "grpc"
entry = "greeter:Greeter"
description = "Says hello."
license = "MIT"

[[capability]]
name = "greeter.hello"
tool = true
effects = "none"

[permissions]
{permissions}
"""
CODE = '''"""Says hello."""

from loom_sdk import Plugin, tool


class Greeter(Plugin):
    @tool("greeter.hello", effects="none")
    def hello(self, ctx, name: str) -> dict:
        """Greet somebody."""
        return {"text": f"Hello, {name}!"}
'''


def greeter(
    folder: Path, version: str = "1.0.0", permissions: str = "", plugin_id: str = "acme/greeter"
) -> Path:
    """The folder of a plugin that says hello."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = MANIFEST.format(id=plugin_id, version=version, permissions=permissions)
    (folder / "plugin.toml").write_text(manifest)
    (folder / "greeter.py").write_text(CODE)
    (folder / "requirements.txt").write_text("requests==2.32.0  # not really\nnumpy\n")
    return folder


def key(folder: Path, name: str = "key") -> SigningKey:
    path = folder / name
    return SigningKey.load(path) if path.exists() else SigningKey.create(path)


def parcel(folder: Path, signer: SigningKey, **options: str) -> Path:
    """A package of the greeter in a file."""
    version = options.get("version", "1.0.0")
    path = folder / f"greeter-{version}-{len(list(folder.glob('*.loom')))}.loom"
    path.write_bytes(pack(greeter(folder / f"src-{path.stem}", **options), signer))
    return path


Entry = tuple[str | zipfile.ZipInfo, bytes]


def entries_of(data: bytes) -> list[Entry]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry, archive.read(entry)) for entry in archive.infolist()]


def rezipped(entries: list[Entry], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these entries, whatever they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for entry, data in entries:
            if isinstance(entry, zipfile.ZipInfo):
                archive.writestr(entry, data)
            else:
                info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.compress_type = compression
                archive.writestr(info, data)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    """The entry of a symbolic link."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info
