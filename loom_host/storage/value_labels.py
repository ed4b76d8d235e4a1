"""The labels beside one plugin's values; see `loom_host/privacy.py` for what they mean."""

from __future__ import annotations

from loom_host.privacy import DEFAULT

from .keys import label_prefix
from .store import Batch, Store


class ValueLabels:
    """By key. Where the plugin has none, which is known after the first look, nothing is read."""

    def __init__(self, plugin_id: str) -> None:
        self._prefix = label_prefix(plugin_id)
        self._any: bool | None = None

    def any(self, store: Store) -> bool:
        """Whether a value bears one, or bore one since the host began."""
        if self._any is None:
            self._any = next(store.scan(self._prefix), None) is not None
        return self._any

    def get(self, store: Store, key: str) -> int:
        """The level of a value; the default where it bears no label."""
        kept = store.get(self._prefix + key.encode()) if self.any(store) else None
        return int(kept) if kept else DEFAULT

    def put(self, store: Store, batch: Batch, key: str, level: int) -> None:
        """Add the label to the batch that writes the value; none for the default."""
        if level != DEFAULT:
            self._any = True
            batch.put(self._prefix + key.encode(), b"%d" % level)
        elif self.any(store):
            batch.delete(self._prefix + key.encode())
