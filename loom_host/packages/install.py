"""Installing and removing: what is proposed to the operator, and what a consent does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loom_host.grants import asked_for, grant, reach
from loom_host.manifest import Manifest, load_manifest
from loom_host.settings import Settings
from loom_host.storage import Batch, keys, store_at
from loom_host.storage.opening import FOLDER as STORE
from loom_sdk.errors import ConfigError, PluginLoadError

from .archive import Archive, read_archive
from .lock import Lock, Locked, load_lock
from .signing import fingerprint
from .sources import Fetched
from .store import PackageStore
from .trust import check_key, take_revocations
from .versions import parse_version

Grants = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A package that is sound, and what a consent to it would mean."""

    archive: Archive
    manifest: Manifest
    locked: Locked
    """What the lock file would hold."""
    before: Locked | None
    new_publisher: bool
    more: Grants
    """What it asks for beyond what was consented to; all of it at a first installation."""

    @property
    def needs_consent(self) -> bool:
        return bool(self.more) or self.before is None or self.new_publisher

    def words(self) -> list[str]:
        """For a person: who signed, what it is, what it asks for."""
        publisher = self.locked.id.partition("/")[0]
        known = "met for the first time" if self.new_publisher else "known"
        change = f" (now {self.before.version})" if self.before else ""
        all_of_it = grant(self.manifest.name, self.manifest, asked_for(self.manifest))
        return [
            f"{self.locked.id} {self.locked.version}{change}: {self.manifest.description}",
            f"signed by {publisher} with key {fingerprint(self.locked.key)}, {known}",
            f"licence: {self.archive.description['license']}",
            *(f"it {text}" for text in reach(self.manifest, all_of_it)),
            *(
                f"new since {self.before.version}: {kind} {', '.join(values)}"
                for kind, values in self.more.items()
                if self.before is not None
            ),
        ]


class Installer:
    """Installs into, and removes from, what the settings' lock file describes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lock: Lock = load_lock(settings.lock_file)
        self.store = PackageStore(settings.host.data_dir)

    def propose(self, fetched: Fetched, *, downgrade: bool = False) -> Proposal:
        """Check a package against the lock file; nothing is installed yet.

        Raises:
            PluginLoadError: tampered with, of an untrusted key, older than what was seen.
            ManifestError: its `plugin.toml` is wrong, or is not about what was signed.
            ConfigError: a plugin of another publisher has its name.
        """
        if take_revocations(self.lock, fetched.revoked, "the index"):
            self.lock.save()  # whatever becomes of this package
        archive = read_archive(fetched.data, fetched.source)
        new_publisher = check_key(archive, self.lock)
        manifest = _manifest_of(archive, fetched.source)
        before = self.lock.plugins.get(manifest.name)
        if before is not None and before.id != archive.id:
            raise ConfigError(
                f"{archive.id}: a plugin {manifest.name!r} of {before.id} is installed; "
                f"`loom plugin remove {manifest.name}` first"
            )
        if not downgrade:
            self._check_version(archive)
        asked = asked_for(manifest)
        locked = Locked(
            archive.id, archive.version, archive.digest, archive.key, asked, fetched.source
        )
        more = _beyond(asked, before.grants if before else {})
        return Proposal(archive, manifest, locked, before, new_publisher, more)

    def accept(self, proposal: Proposal) -> Path:
        """Install what was consented to; returns the folder of its files."""
        archive, locked = proposal.archive, proposal.locked
        folder = self.store.put(archive, locked)
        before, lock = proposal.before, self.lock
        lock.plugins[proposal.manifest.name] = locked
        lock.publishers[locked.id.partition("/")[0]] = locked.key
        seen = lock.highest.get(locked.id, locked.version)
        lock.highest[locked.id] = max(seen, locked.version, key=lambda v: parse_version(v, "lock"))
        lock.save()
        if before is not None and before.digest != locked.digest:
            self.store.remove(before)
        return folder

    def restore(self, name: str, fetched: Fetched) -> Path:
        """Put the files of an entry of the lock file where they are missing.

        Raises PluginLoadError where it is another package than the one that is locked.
        """
        locked = self.lock.plugins[name]
        archive = read_archive(fetched.data, fetched.source)
        check_key(archive, self.lock)
        if (archive.digest, archive.id, archive.key) != (locked.digest, locked.id, locked.key):
            raise PluginLoadError(
                f"{fetched.source} is refused: loom.lock has another {locked.id} {locked.version}"
            )
        return self.store.put(archive, locked)

    def remove(self, name: str, agents: Iterable[str] = ()) -> Locked:
        """Take away its files, its data and its entry; its key and highest version stay known.

        Args:
            agents: those that are its, whose state and logs go, too.

        Raises:
            ConfigError: no such plugin is installed.
            StorageError: a host runs; nothing is taken away.
        """
        locked = self.lock.plugins.get(name)
        if locked is None:
            known = ", ".join(sorted(self.lock.plugins)) or "none"
            raise ConfigError(f"{name!r} is not installed; installed: {known}")
        prefixes = [keys.plugin_prefix(locked.id), keys.label_prefix(locked.id)]
        prefixes += [keys.agent_prefix(agent) for agent in (name, *agents)]
        _erase_storage(self._settings.host.data_dir, prefixes, keys.schema_key(locked.id))
        del self.lock.plugins[name]
        self.lock.save()
        self.store.remove(locked)
        for parent in (self._settings.host.data_dir, self._settings.host.cache_dir):
            shutil.rmtree(parent / "plugins" / locked.id, ignore_errors=True)
        return locked

    def trust(self, publisher: str, key: str) -> None:
        """Pin a key to a publisher by hand."""
        if key in self.lock.revoked:
            raise ConfigError(f"key {fingerprint(key)} is revoked ({self.lock.revoked[key]})")
        self.lock.publishers[publisher] = key
        self.lock.save()

    def _check_version(self, archive: Archive) -> None:
        seen = self.lock.highest.get(archive.id)
        if seen and parse_version(archive.version, archive.id) < parse_version(seen, archive.id):
            raise PluginLoadError(
                f"{archive.id} {archive.version} is refused: version {seen} was seen already, and "
                "an older one may bring back what was mended; --downgrade installs it all the same"
            )


def _manifest_of(archive: Archive, source: str) -> Manifest:
    """The manifest in the archive, which must agree with what was signed about it."""
    if "plugin.toml" not in archive.files:
        raise PluginLoadError(f"{source} is refused: it has no plugin.toml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plugin.toml"
        path.write_bytes(archive.files["plugin.toml"][0])
        manifest = load_manifest(path)
    parse_version(manifest.version, source)
    if (manifest.id, manifest.version) != (archive.id, archive.version):
        raise PluginLoadError(
            f"{source} is refused: it is signed as {archive.id} {archive.version}, and its "
            f"plugin.toml is that of {manifest.id} {manifest.version}"
        )
    return manifest


def _erase_storage(data_dir: Path, prefixes: Sequence[bytes], alone: bytes) -> None:
    """Delete what the plugin kept with the host, where anything was kept at all."""
    if not (data_dir / STORE).is_dir():
        return
    store, batch = store_at(data_dir), Batch()
    try:
        for prefix in prefixes:
            for key, _ in store.scan(prefix):
                batch.delete(key)
        batch.delete(alone)
        store.write(batch)
        for prefix in prefixes:
            store.erase(prefix)
    finally:
        store.close()


def _beyond(asked: Grants, known: Grants) -> dict[str, tuple[str, ...]]:
    more = {
        kind: tuple(value for value in values if value not in known.get(kind, ()))
        for kind, values in asked.items()
    }
    return {kind: values for kind, values in more.items() if values}
