"""The environment of the process, which in the native tier is the host's."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()
"""Two at once would each take what the other had set for what was there before."""


@contextmanager
def kept(**wanted: str) -> Iterator[None]:
    """Undo what the body does to environment variables.

    For libraries that read them, or set some for others, while they are imported:

        with kept(OMP_WAIT_POLICY="passive"):
            import engine

    Args:
        wanted: set for the body, where they are not set already.
    """
    with _lock:
        before = dict(os.environ)
        os.environ.update({name: wanted[name] for name in wanted.keys() - before.keys()})
        try:
            yield
        finally:
            _undo(before)


def _undo(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
