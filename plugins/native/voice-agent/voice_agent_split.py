"""Cuts a text that is still being written into pieces that can be spoken on their own."""

from __future__ import annotations

MIN_CLAUSE = 8
"""Characters of a first clause at least: "Yes," alone sounds clipped."""
MAX_PIECE = 240
"""Characters of a piece at most: about 15 s of speech, the engine's work before its first sound."""
ENDS = ".!?…"
CLAUSE_ENDS = ",;:–—"
CLOSING = "\"'”’)]»"
ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "st", "vs", "e.g", "i.e", "approx", "prof"))


class Splitter:
    """Takes text in any portions; the pieces joined are the text.

    A sentence ends at `.!?…` or a line break. The first piece may be a clause, so that speech
    begins early. Where a piece ends does not depend on how the text was portioned.
    """

    def __init__(self) -> None:
        self._piece = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        """The pieces that are complete now, with the space that ended each."""
        pieces = []
        for character in text:
            self._piece += character
            if self._ended():
                pieces += self._cut(len(self._piece))
            elif len(self._piece) >= MAX_PIECE:
                pieces += self._cut(self._piece.rfind(" ") + 1 or MAX_PIECE)
        return pieces

    def finish(self) -> list[str]:
        """What is left when the text has ended."""
        return self._cut(len(self._piece)) if self._piece else []

    def _cut(self, length: int) -> list[str]:
        piece, self._piece = self._piece[:length], self._piece[length:]
        self._first = self._first and not speakable(piece)
        return [piece]

    def _ended(self) -> bool:
        """Whether the last character, a space, stands behind the end of a sentence or clause."""
        last = self._piece[-1]
        if not last.isspace() or not speakable(self._piece):
            return False
        body = self._piece.rstrip()
        mark = body.rstrip(CLOSING)[-1:]
        if last == "\n":
            return True
        if mark and mark in ENDS:
            return not (mark == "." and _abbreviated(body))
        return self._first and mark != "" and mark in CLAUSE_ENDS and len(body) >= MIN_CLAUSE


def speakable(text: str) -> bool:
    """Whether there is anything to say: a letter or a digit."""
    return any(character.isalnum() for character in text)


def _abbreviated(body: str) -> bool:
    word = body.split()[-1].rstrip(".").lstrip("([\"'“‘").lower()
    # A single letter is an initial ("J. Smith"), except "I".
    return word in ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i")
