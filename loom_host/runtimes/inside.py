"""A plugin that is part of the host: what it answers is its own, the rest is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from loom_sdk import Event

from .base import Declaration, Usage


class Inside:
    """An instance without process, guest or thread of its own; a subclass has `invoke`."""

    asleep = False

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.enforcement: Mapping[str, str] = {}

    async def wake(self) -> None:
        """It never sleeps."""

    async def handle_event(self, event: Event) -> int:
        return 0

    async def health(self) -> str:
        return ""

    async def wait_exit(self) -> str:
        """It ends with the host."""
        await asyncio.Event().wait()
        return ""

    async def aclose(self, grace_s: float) -> None:
        return

    def usage(self) -> Usage:
        return Usage()
