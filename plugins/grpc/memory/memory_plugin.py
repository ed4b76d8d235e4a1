"""`memory.append`, `memory.search`, `memory.forget`: what was said, found again by meaning or time.

Whose memory it is and how private the turn is, the host tells (`loom.caller`); a caller names
neither. Each agent, and each plugin that is none, has a *space* of its own.
"""

from __future__ import annotations

import array
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from memory_items import Entry, Filter, Limits, Vectors
from memory_store import MemoryStore

from loom_sdk import Context, Plugin, capability
from loom_sdk.errors import InvalidArguments, LoomError, PermissionDenied, StorageError

LEVELS = ("public", "sensitive", "private", "local-only")
BATCH = 64
"""Items without a vector that one call brings up to date."""
FILE = "memory.sqlite"


class _NewItem(TypedDict):
    text: Annotated[str, {"minLength": 1, "maxLength": 20000}, "what to remember"]


class NewItem(_NewItem, total=False):
    role: Annotated[str, {"maxLength": 200}, "who said it, such as user or assistant"]
    user: Annotated[str, {"maxLength": 200}, "whom it is about or from"]
    session: Annotated[str, {"maxLength": 200}]
    time_ms: Annotated[int, {"minimum": 1}, "Unix time in milliseconds; default: now"]
    metadata: dict[str, Any]


class _Asker(TypedDict):
    space: str
    level: int
    reads: int
    operator: bool


class Memory(Plugin):
    """One file for all spaces."""

    def __init__(self) -> None:
        super().__init__()
        self._store: MemoryStore | None = None

    def start(self, ctx: Context) -> None:
        """Raises PluginLoadError where a library is missing, StorageError for a damaged file."""
        folder = ctx.data_dir
        if folder is None:
            raise StorageError("the memory needs a folder of its own, which this tier has not")
        folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(
            self.config["max_items"], self.config["max_bytes"], self.config["max_age_days"]
        )
        self._store = MemoryStore(Path(folder) / FILE, limits, durable=self.config["durable"])

    def stop(self, ctx: Context) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def store(self) -> MemoryStore:
        assert self._store is not None, "start was not called"
        return self._store

    @capability("memory.append", effects="once")
    def append(
        self,
        ctx: Context,
        items: Annotated[list[NewItem], {"minItems": 1, "maxItems": BATCH}],
    ) -> dict[str, Any]:
        """Remember what happened, in the caller's own space.

        What no vectors can be had for now is found by time at once, and by meaning later.

        Args:
            items: in order; each with its text, and who said it to whom when
        """
        asker = self._asker(ctx)
        now = time.time_ns() // 1_000_000
        entries = [Entry(**{"time_ms": now, **item}) for item in items]  # type: ignore[arg-type]
        vectors = self._vectors_or_none(ctx, [entry.text for entry in entries])
        ids = self.store.append(asker["space"], asker["level"], entries, vectors)
        return {"ids": ids, "embedded": vectors is not None}

    @capability("memory.search", effects="none")
    def search(
        self,
        ctx: Context,
        query: Annotated[str, {"maxLength": 2000}] = "",
        kind: Literal["", "semantic", "episodic"] = "",
        k: Annotated[int, {"minimum": 1, "maximum": 100}] = 10,
        user: str = "",
        session: str = "",
        role: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
        min_score: float = -1.0,
        spaces: list[str] | None = None,
    ) -> dict[str, Any]:
        """Find what is remembered: by meaning, the best first, or the newest in order of time.

        Args:
            query: what it should be about; needed for semantic
            kind: semantic or episodic; by default semantic where there is a query
            k: how many at most
            user: only what has this user
            session: only what has this session
            role: only what was said by this role
            since_ms: only from this Unix time on, in milliseconds
            until_ms: only before this time; 0 is no bound
            min_score: only what has at least this cosine
            spaces: whose memory; by default the caller's own
        """
        asker = self._asker(ctx)
        kind = _kind(kind, query)
        own = self._readable(asker, spaces)
        where = Filter(own, asker["reads"], user, session, role, since_ms, until_ms)
        if kind == "episodic":
            found = self.store.newest(where, k)
        else:
            found = self._by_meaning(ctx, asker, query, where, k, min_score)
        return {"kind": kind, "items": [_shown(item) for item in found]}

    @capability("memory.forget", effects="idempotent")
    def forget(
        self,
        ctx: Context,
        user: str = "",
        session: str = "",
        ids: list[int] | None = None,
        spaces: list[str] | None = None,
    ) -> dict[str, Any]:
        """Delete so that nothing stays in the memory's files, nor in the host's event log.

        With several of user, session and ids, what fits all of them goes.

        Args:
            user: what has this user
            session: what has this session
            ids: these items
            spaces: for the operator, whose memory; by default everybody's
        """
        asker = self._asker(ctx)
        if not (user or session or ids):
            raise InvalidArguments("say what to forget: a user, a session or ids")
        if spaces and not asker["operator"]:
            raise _not_yours(ctx, asker["space"], spaces)
        own = tuple(spaces or ()) if asker["operator"] else (asker["space"],)
        count = self.store.forget(Filter(own, 3, user, session, ids=tuple(ids or ())))
        logged = 0
        if self.config["forget_events"] and not ids and not spaces:
            wanted = {self.config["user_key"]: user, self.config["session_key"]: session}
            metadata = {key: value for key, value in wanted.items() if value}
            logged = ctx.invoke("loom.forget", {"metadata": metadata}).output["events"]
        return {"items": count, "events": logged}

    # -- who asks

    def _asker(self, ctx: Context) -> _Asker:
        told = ctx.invoke("loom.caller").output
        kind, name = ("agent", told["agent"]) if told["agent"] else (told["kind"], told["caller"])
        return {
            "space": "host" if kind == "host" else f"{kind}/{name}",
            "level": LEVELS.index(told["privacy"]),
            "reads": LEVELS.index(told["reads"]),
            "operator": kind == "host",
        }

    def _readable(self, asker: _Asker, spaces: Sequence[str] | None) -> tuple[str, ...]:
        """The spaces to search; empty for all. Raises PermissionDenied."""
        if asker["operator"]:
            return tuple(spaces or ())
        own, shared = asker["space"], self.config["shared"]
        for space in spaces or ():
            if space != own and own not in shared.get(space, ()):
                raise PermissionDenied(
                    f"{own} may not read the memory of {space}; to allow it add to loom.toml:\n"
                    f'[plugins.memory.config.shared]\n"{space}" = ["{own}"]',
                    permission=f"memory:{space}",
                )
        return tuple(spaces or (own,))

    # -- vectors

    def _by_meaning(
        self, ctx: Context, asker: _Asker, query: str, where: Filter, k: int, min_score: float
    ) -> list[dict[str, Any]]:
        vector = self._vectors(ctx, [query])
        self._catch_up(ctx, asker["level"], vector)
        near = self.store.nearest(vector, where, k)
        return [item | {"score": round(score, 4)} for score, item in near if score >= min_score]

    def _catch_up(self, ctx: Context, level: int, like: Vectors) -> None:
        """Vectors for what waits for them. Nothing stricter than this turn leaves in it."""
        self.store.expect(like)
        waiting = self.store.waiting(level, BATCH)
        if waiting:
            ids, texts = zip(*waiting, strict=True)
            self.store.embed(ids, self._vectors(ctx, texts))

    def _vectors_or_none(self, ctx: Context, texts: Sequence[str]) -> Vectors | None:
        try:
            return self._vectors(ctx, texts)
        except LoomError as error:
            ctx.log(f"kept without vectors: {type(error).__name__}", "warning")
            return None

    def _vectors(self, ctx: Context, texts: Sequence[str]) -> Vectors:
        result = ctx.invoke("embed.text", {"texts": list(texts)})
        size = result.output["dimensions"]
        return Vectors(result.output["model"], size, _normal(result.payload, len(texts), size))


def _normal(data: bytes, count: int, size: int) -> bytes:
    """The vectors, each of length 1. Raises InvalidArguments where they are not what was said."""
    numbers = array.array("f", data)
    if len(numbers) != count * size or not size:
        raise InvalidArguments(
            f"embed.text gave {len(data)} bytes for {count} vectors of {size} numbers"
        )
    if sys.byteorder == "big":
        numbers.byteswap()
    for start in range(0, len(numbers), size):
        length = math.sqrt(math.fsum(x * x for x in numbers[start : start + size]))
        if not abs(length - 1) < 1e-3 and length:
            for i in range(start, start + size):
                numbers[i] /= length
    return numbers.tobytes()


def _kind(kind: str, query: str) -> str:
    kind = kind or ("semantic" if query else "episodic")
    if (kind == "semantic") != bool(query):
        raise InvalidArguments("a query is for kind semantic, which needs one")
    return kind


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    level = item.pop("level")
    return item | {"privacy": LEVELS[level]}


def _not_yours(ctx: Context, own: str, spaces: Sequence[str]) -> PermissionDenied:
    return PermissionDenied(
        f"{own} may forget what is its own, not {', '.join(spaces)}: the operator may, with "
        "`loom call memory.forget`",
        plugin_id=ctx.plugin_id,
        permission="memory.forget",
    )
