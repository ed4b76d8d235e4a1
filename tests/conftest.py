"""The order of the tests: files with slow ones first, so that no worker is left with them alone."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

# Plugins whose entry is `["python", ...]` run on this interpreter, with or without an active venv.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
