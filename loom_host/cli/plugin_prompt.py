"""The commands of `loom plugin run`, and where they are read from: a terminal or a pipe."""

from __future__ import annotations

import asyncio
import base64
import re
import shlex
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from loom_host.hints import did_you_mean
from loom_host.workbench.workbench import Workbench
from loom_sdk.errors import PluginUnhealthy
from loom_sdk.topics import check_pattern

from .calls import parse_arguments, parse_pair
from .common import WrongUsage
from .plugin_console import Console

HELP = """\
call CAPABILITY KEY=VALUE ...           invoke it; or one JSON object in place of the pairs
send TOPIC TYPE [TEXT] [KEY=VALUE ...]  publish an event, with metadata
reload                                  as after a save
events on | off | PATTERN               which events are shown; those of loom.> only by pattern
state                                   what the plugin uses, its process, calls and errors
grants                                  what it may do
help, quit"""
CALL_TIMEOUT_MS = 30_000
_METADATA = re.compile(r"[A-Za-z_][\w.-]*=")
_STATE = (
    "id", "version", "tier", "isolation", "state", "reason", "pid", "calls", "events", "errors",
    "restarts", "swaps", "denials", "hits", "in_flight", "memory", "peak_memory", "note",
)  # fmt: skip


class Commands:
    """What the author may ask for."""

    def __init__(self, bench: Workbench, console: Console) -> None:
        self._bench, self._console = bench, console
        self.verbs: dict[str, Callable[[str], Awaitable[None]]] = {
            "call": self._call,
            "send": self._send,
            "reload": self._reload,
            "events": self._events,
            "state": self._state,
            "grants": self._grants,
            "help": self._help,
        }

    async def run(self, line: str) -> None:
        """Do what a line says. Raises a LoomError that tells why not."""
        verb, _, rest = line.strip().partition(" ")
        if verb not in self.verbs:
            known = [*self.verbs, "quit"]
            hint = did_you_mean(verb, known, f"say {', '.join(known)}")
            raise WrongUsage(f"{verb!r} is no command: {hint}")
        await self.verbs[verb](rest.strip())

    def words(self, before: str) -> list[str]:
        """What may come next, for completion."""
        said = before.split(" ")
        if len(said) == 1:
            return [*self.verbs, "quit"]
        if len(said) > 2:
            return []
        found = {"call": self._offered, "send": self._topics, "events": self._topics}
        words = found[said[0]]() if said[0] in found else []
        return ["on", "off", *words] if said[0] == "events" else words

    def _offered(self) -> list[str]:
        manifest = self._bench.manifest
        return [spec.name for spec in manifest.capabilities] if manifest else []

    def _topics(self) -> list[str]:
        manifest = self._bench.manifest
        topics = (*(s.topic for s in manifest.subscribes), *manifest.publishes) if manifest else ()
        return list(dict.fromkeys(topics))

    async def _call(self, rest: str) -> None:
        capability, _, given = rest.partition(" ")
        if not capability:
            raise WrongUsage("say which: call CAPABILITY KEY=VALUE ...")
        words = [given] if given.lstrip().startswith("{") else _split(given)
        order = self._bench.order
        answer = await self._bench.running().ask(
            {
                "op": "call",
                "capability": capability,
                "arguments": parse_arguments(words),
                "timeout_ms": CALL_TIMEOUT_MS if not order.debug else CALL_TIMEOUT_MS * 1000,
            }
        )
        payload = base64.b64decode(answer.pop("payload"))
        self._console.show("answer", {**answer, "payload_bytes": len(payload)})

    async def _send(self, rest: str) -> None:
        words = _split(rest)
        if len(words) < 2:
            raise WrongUsage("say topic and type: send TOPIC TYPE [TEXT] [KEY=VALUE ...]")
        text = [word for word in words[2:] if not _METADATA.match(word)]
        metadata = dict(parse_pair(word) for word in words[2:] if _METADATA.match(word))
        request = {"op": "publish", "topic": words[0], "type": words[1]}
        more = {"payload": " ".join(text), "metadata": metadata}
        self._console.show("sent", await self._bench.running().ask(request | more))

    async def _reload(self, rest: str) -> None:
        await self._bench.reload()

    async def _events(self, rest: str) -> None:
        if rest not in ("on", "off", ""):
            check_pattern(rest)
        if rest:
            self._console.pattern = {"on": ">", "off": ""}.get(rest, rest)
        shown = self._console.pattern or "none"
        self._console.show("help", {"message": f"events that are shown: {shown}"})

    async def _state(self, rest: str) -> None:
        rows = await self._bench.running().ask({"op": "ps"})
        row = rows[0]
        self._console.show("state", {key: row[key] for key in _STATE})

    async def _grants(self, rest: str) -> None:
        manifest = self._bench.manifest
        if manifest is None:
            raise PluginUnhealthy("the plugin has not started yet")
        order = self._bench.order
        granted, withheld = order.allowed(manifest), order.withheld(manifest)
        self._console.show("grants", {"granted": granted, "withheld": withheld})

    async def _help(self, rest: str) -> None:
        self._console.show("help", {"message": HELP})


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise WrongUsage(f"{text!r}: {error}: close the quotation mark") from error


async def from_pipe() -> AsyncIterator[str]:
    """The lines of stdin. Read in a thread of its own: a pipe that is silent blocks nobody."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


async def from_terminal(commands: Commands) -> AsyncIterator[str]:
    """What is typed, until Ctrl-C or Ctrl-D; what is printed meanwhile goes above the prompt."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.patch_stdout import patch_stdout
    from prompt_toolkit.shortcuts import CompleteStyle

    class Words(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
            before = document.text_before_cursor.lstrip()
            part = before.rpartition(" ")[2]
            for word in commands.words(before):
                if word.startswith(part):
                    yield Completion(word, -len(part))

    session: PromptSession[str] = PromptSession(
        "loom> ", completer=Words(), complete_style=CompleteStyle.READLINE_LIKE,
        interrupt_exception=_Interrupted,
    )  # fmt: skip
    with patch_stdout(raw=True):
        while True:
            try:
                yield await session.prompt_async(handle_sigint=False)
            except (EOFError, _Interrupted):
                return


class _Interrupted(Exception):
    """Ctrl-C at the prompt. No KeyboardInterrupt, which would end the loop and not only this."""
