"""In which line of a `plugin.toml` a table or key stands. Parsers of TOML do not tell."""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[(\[?)\s*([\w.\-\" ]+?)\s*\]?\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([\w-]+|\"[^\"]*\")\s*(?:\.\s*[\w-]+\s*)*=")


class TomlLines:
    """Looks line by line: what stands within a text of several lines may be taken for a key."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._tables: dict[tuple[str, int], int] = {}
        self._keys: dict[tuple[str, int, str], int] = {}
        table, counts = ("", 0), dict[str, int]()
        for number, line in enumerate(self._lines, 1):
            if head := _TABLE.match(line):
                name = head[2].replace('"', "").replace(" ", "")
                index = counts.get(name, 0)
                counts[name] = index + 1
                table = (name, index)
                self._tables[table] = number
            elif key := _KEY.match(line):
                self._keys.setdefault((*table, key[1].strip('"')), number)

    def holding(self, text: str) -> int:
        """The first line that has the text in quotes, 0 where none has."""
        for number, line in enumerate(self._lines, 1):
            if _quotes(line, text):
                return number
        return 0

    def table(self, name: str, index: int = 0) -> int:
        """0 where it is not found; an inline table is the key that it stands under."""
        parent, _, last = name.rpartition(".")
        above = self._keys.get((parent, index, last)) or self._keys.get((parent, 0, last), 0)
        return self._tables.get((name, index)) or above

    def key(self, table: str, key: str, index: int = 0) -> int:
        """The table where the key is not found."""
        return self._keys.get((table, index, key)) or self.table(table, index)

    def value(self, table: str, key: str, text: str, index: int = 0) -> int:
        """The line from the key on that has the text in quotes, else the key."""
        start = self.key(table, key, index)
        for number in range(start, len(self._lines) + 1) if start else ():
            line = self._lines[number - 1]
            if _quotes(line, text):
                return number
            if number > start and (_TABLE.match(line) or _KEY.match(line)):
                break
        return start


def _quotes(line: str, text: str) -> bool:
    return f'"{text}"' in line or f"'{text}'" in line
