"""What was said before: the last questions and answers of each session."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from loom_sdk.engines import Message

MAX_SESSIONS = 32


class History:
    """The last questions and answers of each session. Lives as long as the plugin."""

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._sessions: OrderedDict[str, deque[tuple[str, str]]] = OrderedDict()

    def add(self, session: str, question: str, answer: str) -> None:
        turns = self._sessions.setdefault(session, deque(maxlen=self._turns))
        turns.append((question, answer))
        self._sessions.move_to_end(session)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def messages(self, session: str) -> Iterator[Message]:
        for question, answer in self._sessions.get(session, ()):
            yield {"role": "user", "content": question}
            yield {"role": "assistant", "content": answer}
