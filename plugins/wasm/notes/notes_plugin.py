"""Short notes that last: `notes.add`, `notes.list`, `notes.search`, `notes.delete`.

One key per note, `note/` and the number in ten digits, so that keys sort by age.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

from loom_sdk import Context, Plugin, tool
from loom_sdk.errors import ActionFailed

MAX_LENGTH = 4000
"""Characters of a note."""
_PREFIX = "note/"


class Note(TypedDict):
    id: Annotated[int, "its number, counted from 1 and never used twice"]
    text: str
    tags: list[str]
    created: Annotated[int, "Unix time in seconds"]


class Notes(Plugin):
    """Needs `storage = true`."""

    @tool("notes.add", effects="once")
    def add(self, ctx: Context, text: str, tags: list[str] | None = None) -> dict[str, Any]:
        """Keep a note.

        Args:
            text: what to remember
            tags: words to find it by
        """
        text = text.strip()
        if not 0 < len(text) <= MAX_LENGTH:
            raise ActionFailed(f"a note has 1 to {MAX_LENGTH} characters", code="INVALID_NOTE")
        number = int(ctx.kv.get("last") or b"0") + 1
        labels = sorted({tag.strip().lower() for tag in tags or []} - {""})
        note: Note = {"id": number, "text": text, "tags": labels, "created": int(time.time())}
        # The number first: a note that could not be kept leaves a gap, never a note overwritten.
        ctx.kv.put("last", str(number).encode())
        ctx.kv.put(_key(number), json.dumps(note).encode())
        return {"note": note, "speech": "Noted."}

    @tool("notes.list", effects="none")
    def newest(self, ctx: Context, tag: str = "", limit: int = 20) -> dict[str, Any]:
        """The newest notes.

        Args:
            tag: only notes with this tag
            limit: how many at most
        """
        wanted = tag.strip().lower()
        found = [n for n in self._all(ctx) if not wanted or wanted in n["tags"]]
        return _answer(found[: max(limit, 0)], len(found))

    @tool("notes.search", effects="none")
    def search(self, ctx: Context, query: str, limit: int = 10) -> dict[str, Any]:
        """Find notes that hold every word of a query, the newest first.

        Args:
            query: words, in any case; a part of a word counts
            limit: how many at most
        """
        words = query.casefold().split()
        if not words:
            raise ActionFailed("a search needs a word", code="INVALID_QUERY")
        found = [note for note in self._all(ctx) if _holds(note, words)]
        return _answer(found[: max(limit, 0)], len(found))

    @tool("notes.delete", effects="idempotent")
    def delete(self, ctx: Context, id: int) -> dict[str, Any]:
        """Forget a note.

        Args:
            id: its number, as notes.list shows it
        """
        known = ctx.kv.get(_key(id)) is not None
        ctx.kv.delete(_key(id))
        speech = f"Note {id} is deleted." if known else f"There is no note {id}."
        return {"deleted": known, "speech": speech}

    def _all(self, ctx: Context) -> Iterator[Note]:
        """Newest first."""
        for key in sorted(ctx.kv.keys(_PREFIX), reverse=True):
            value = ctx.kv.get(key)
            if value is not None:
                yield json.loads(value)


def _key(number: int) -> str:
    return f"{_PREFIX}{number:010d}"


def _holds(note: Note, words: list[str]) -> bool:
    text = " ".join([note["text"], *note["tags"]]).casefold()
    return all(word in text for word in words)


def _answer(notes: list[Note], total: int) -> dict[str, Any]:
    said = "; ".join(note["text"] for note in notes[:3]) or "none"
    plural = "note" if total == 1 else "notes"
    return {"notes": notes, "total": total, "speech": f"{total} {plural}: {said}."}
