"""Folders and entry points -> manifests. No plugin code is loaded here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from loom_sdk.errors import ConfigError, LoomError, ManifestError
from loom_sdk.plugin import API_VERSION

from .manifest import Manifest, load_manifest, parse_manifest

PACKAGE = Path(__file__).parent
ENTRY_POINTS = "loom.plugins"


def bundle(name: str) -> Path:
    """A folder that travels with the host: inside the package, else in the repository."""
    packaged = PACKAGE / "_bundle" / name
    return packaged if packaged.is_dir() else PACKAGE.parent / name


def first_party_root() -> Path:
    return bundle("plugins")


def find_manifests(roots: Iterable[Path]) -> dict[str, Manifest]:
    """Every plugin below the roots (`root/plugin.toml`, `root/*/` and `root/*/*/`), by name.

    Raises:
        ConfigError: a root is no folder, or two plugins have one name.
        ManifestError: a manifest is wrong.
    """
    found: dict[str, Manifest] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"plugin path {root} is not a folder: mend host.plugin_paths")
        for path in _files(root):
            found.update(_distinct(found, load_manifest(path)))
    return found


def bare_component(name: str, path: Path) -> Manifest:
    """The manifest of a component that has none: `[plugins.NAME] path = "file.wasm"`.

    Raises:
        ConfigError: there is no such file, or the name is no plugin's name.
    """
    where = f"[plugins.{name}] path"
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path}")
    head = {
        "id": f"local/{name}", "version": "0.0.0", "api": API_VERSION, "type": "tool",
        "tier": "wasm", "entry": path.name, "description": f"The component {path.name}",
    }  # fmt: skip
    try:
        return parse_manifest({"plugin": head}, path)
    except ManifestError as error:
        raise ConfigError(
            f"{where}: {name!r} must be of lower case letters, digits and dashes"
        ) from error


def _distinct(found: dict[str, Manifest], manifest: Manifest) -> dict[str, Manifest]:
    other = found.get(manifest.name)
    if other is not None and other.folder != manifest.folder:
        raise ConfigError(
            f"two plugins are called {manifest.name!r}: {other.folder} and "
            f"{manifest.folder}; rename one"
        )
    return {manifest.name: manifest}


def find_named(names: Collection[str], own_roots: Iterable[Path]) -> dict[str, Manifest]:
    """Manifests of the named plugins, reading no more than that needs.

    First-party folders bear the plugin's name. Installed distributions are looked through only
    for a name that is found nowhere else; then every manifest there is is returned, so that a
    message can suggest what was meant. Raises as `find_manifests`.
    """
    own = list(own_roots)
    found = find_manifests(own)
    for path in _files(first_party_root()):
        if path.parent.name in names:
            found.update(_distinct(found, load_manifest(path)))
    if all(name in found for name in names):
        return found
    return find_manifests([first_party_root(), *own, *installed_roots()])


def _files(root: Path) -> list[Path]:
    patterns = ("plugin.toml", "*/plugin.toml", "*/*/plugin.toml")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def installed_roots() -> list[Path]:
    """Folders of installed distributions that declare plugins in the `loom.plugins` group.

    The entry point's value names the package that holds `plugin.toml`; it is located, not imported.
    """
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    roots = []
    for point in entry_points(group=ENTRY_POINTS):
        spec = find_spec(point.module.partition(".")[0])
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"entry point {point.name!r}: package {point.module} is missing")
        parts = point.module.split(".")[1:]
        roots.append(Path(spec.submodule_search_locations[0]).joinpath(*parts))
    return roots


def is_first_party(manifest: Manifest) -> bool:
    return manifest.folder.resolve().is_relative_to(first_party_root().resolve())


def code_hash(folder: Path) -> str:
    """`sha256:` over the names and contents of a plugin's files, in order."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not {"__pycache__", "build"} & set(inside.parts):
            digest.update(f"{inside}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def problems(roots: Iterable[Path]) -> list[str]:
    """Messages of the manifests that cannot be used, for `loom check`."""
    wrong = []
    for root in roots:
        for path in _files(root):
            try:
                load_manifest(path)
            except LoomError as error:
                wrong.append(error.message)
    return wrong
