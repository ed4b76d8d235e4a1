"""One plugin's own part of a store, with its quota in bytes and the version of its data."""

from __future__ import annotations

import logging
from copy import copy

from loom_host.privacy import DEFAULT
from loom_sdk.errors import StorageError
from loom_sdk.port import SCHEMA_KEY

from .keys import plugin_prefix, schema_key
from .store import Batch, Store
from .value_labels import ValueLabels

log = logging.getLogger("loom.storage")


class PluginStore:
    """One plugin's own part of a store, with its quota in bytes of keys and values.

    The version of the data is kept beside it: that of the plugin that first put something, until
    a newer one says that it has brought the data up to its own by a put to `SCHEMA_KEY`. Every
    method raises StorageError where the data is of a newer version than the plugin's.
    """

    def __init__(self, store: Store, plugin_id: str, limit: int, version: int = 1) -> None:
        self._store = store
        self._id = plugin_id
        self._prefix = plugin_prefix(plugin_id)
        self._limit = limit
        self._used: int | None = None
        self._version = version
        self._stored: int | None = None
        self._labels = ValueLabels(plugin_id)

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def version(self) -> int:
        """Of the data that the plugin knows."""
        return self._version

    def used(self) -> int:
        """Bytes of keys and values; counted once, then kept."""
        if self._used is None:
            start = len(self._prefix)
            pairs = self._store.scan(self._prefix)
            self._used = sum(len(key) - start + len(value) for key, value in pairs)
        return self._used

    def over(self, store: Store) -> PluginStore:
        """The same part as it is in a store that stands before this one, counted from here on."""
        part = copy(self)
        part._store, part._used = store, self.used()
        return part

    def committed(self, part: PluginStore, before: int) -> None:
        """What was put in `part`, of `over`, is in this one's store now.

        Args:
            before: bytes that the part used when it was made.
        """
        self._used = self.used() + part.used() - before
        self._stored = part._stored

    def schema(self) -> int:
        """Version of the data that is stored, 0 where there is none yet."""
        if self._stored is None:
            kept = self._store.get(schema_key(self._id))
            if kept is not None:
                self._stored = int(kept)
            else:  # data of a host that kept no versions is of the first
                self._stored = int(next(self._store.scan(self._prefix), None) is not None)
            if 0 < self._stored < self._version:
                log.warning(
                    "%s has version %d of its data, the store holds version %d: it must bring it "
                    "up to date and then call ctx.kv.migrated()",
                    self._id, self._version, self._stored,
                )  # fmt: skip
        if self._stored > self._version:
            raise StorageError(
                f"the data of {self._id} is of version {self._stored}, this release of it knows "
                f"version {self._version}: install the newer release again, or restore a backup "
                "from before it (`loom storage restore`)"
            )
        return self._stored

    def _migrated(self, version: bytes) -> None:
        if version != b"%d" % self._version:
            raise StorageError(
                f"{self._id} cannot make its data version {version.decode(errors='replace')}: its "
                f"manifest says [storage] version = {self._version}"
            )
        self._store.put(schema_key(self._id), version)
        self._stored = self._version

    def get(self, key: str) -> bytes | None:
        if key == SCHEMA_KEY:
            return b"%d" % self.schema()
        self.schema()
        return self._store.get(self._prefix + key.encode())

    @property
    def labels_any(self) -> bool:
        """Whether any value may bear a label."""
        return self._labels.any(self._store)

    def label(self, key: str) -> int:
        """The level of privacy of a value."""
        return self._labels.get(self._store, key)

    def put(self, key: str, value: bytes, label: int = DEFAULT) -> bool:
        """Store it; False, changing nothing, where that would go over the limit.

        Args:
            label: the level of privacy, kept beside it.
        """
        new = not self.schema()
        if key == SCHEMA_KEY:
            self._migrated(value)
            return True
        old = self.get(key)
        replaced = len(old) if old is not None else -len(key.encode())
        grown = self.used() + len(value) - replaced
        if grown > self._limit:
            return False
        batch = Batch()
        batch.put(self._prefix + key.encode(), value)
        if new:
            batch.put(schema_key(self._id), b"%d" % self._version)
        self._labels.put(self._store, batch, key, label)
        self._store.write(batch)
        self._used, self._stored = grown, self._stored or self._version
        return True

    def delete(self, key: str) -> None:
        old = self.get(key)
        if old is not None:
            self._used = self.used() - len(old) - len(key.encode())
            batch = Batch()
            batch.delete(self._prefix + key.encode())
            self._labels.put(self._store, batch, key, DEFAULT)
            self._store.write(batch)

    def keys(self, prefix: str) -> list[str]:
        self.schema()
        start = len(self._prefix)
        found = self._store.scan(self._prefix + prefix.encode())
        return [key[start:].decode() for key, _ in found]
