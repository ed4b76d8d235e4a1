"""Memory as 64-bit words: the host's own to write, and copies of what others own to read."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .values import TooLarge

Words = Any
"""An array of 64-bit words, of the host or copied from wasmtime's memory."""
Kept = list[Any]
"""What must live until wasmtime has copied the words that point there."""


class Codec(NamedTuple):
    """How values of one type move."""

    lower: Callable[[Any, Words, int, Kept], None]
    """(Python value, words to fill, where, what to keep alive). Raises TypeError, ValueError."""
    lift: Callable[[Words, int, int], Any]
    """(words, where, longest string or list) to Python; frees nothing. Raises TooLarge."""


bytes_at = ctypes.string_at
_text_at = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_char_p)(
    ("PyUnicode_DecodeUTF8", ctypes.pythonapi)
)
"""(address, bytes, None) to text. Raises UnicodeDecodeError."""
address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(
    ("PyBytes_AsString", ctypes.pythonapi)
)
"""Where the content of a `bytes` lies, for as long as it lives."""
_EMPTY = ctypes.create_string_buffer(64)
NOWHERE = ctypes.addressof(_EMPTY)
"""Where an empty list lies."""


def new_block(size: int, kept: Kept) -> tuple[Words, int]:
    """`size` words of the host's memory and their address, which holds as long as `kept` does."""
    block = array("Q", bytes(8 * size))
    kept.append(block)
    return block, block.buffer_info()[0] or NOWHERE


def words_at(size: int) -> Callable[[int], Words]:
    """Reads `size` words where they lie, by their address."""
    made: Callable[[int], Words] = (ctypes.c_uint64 * size).from_address
    return made


def copied(address: int, size: int) -> Words:
    """`size` words, where the number is known only when they are there."""
    return array("Q", bytes_at(address, 8 * size) if size else b"")


def lift_text(words: Words, at: int, limit: int) -> str:
    """The text whose length and address follow the word at `at`. Raises TooLarge."""
    size = words[at + 1]
    if size > limit:
        raise TooLarge(size)
    return _text_at(words[at + 2], size, None) if size else ""


class Names:
    """The names of a type, written once: length and address of each."""

    def __init__(self, names: Iterable[str]) -> None:
        self._data = {name: name.encode() for name in names}
        self._words = {name: (len(data), address_of(data)) for name, data in self._data.items()}
        self._longest = max(map(len, self._data.values()))

    def write(self, name: str, words: Words, at: int) -> None:
        """Raises ValueError where it is none of them."""
        if name not in self._words:
            raise ValueError(f"{name!r} is none of {', '.join(self._words)}")
        words[at], words[at + 1] = self._words[name]

    def read(self, words: Words, at: int) -> str:
        """Raises TooLarge for what is longer than any."""
        return lift_text(words, at - 1, self._longest)
