"""Structured logs: JSON or text lines, with trace ids, without secrets, and a ring per plugin."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from loom_sdk.errors import ActionFailed, LoomError

from .ring import Follower, Ring
from .spans import current, parse_traceparent

LOGGERS = ("loom", "loom_host", "loom_sdk")
SECRET_MIN = 4
"""Shorter values are not redacted: they would blot out ordinary text."""
PLUGIN_LOGGER = "loom.plugin"
_HIDDEN = "[redacted]"
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("plugin", "traceparent")


class Redactor:
    """Takes known secrets out of text."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, values: Iterable[str]) -> None:
        """Hide these from now on; values below SECRET_MIN characters are ignored."""
        self._values |= {value for value in values if len(value) >= SECRET_MIN}
        longest_first = sorted(self._values, key=len, reverse=True)
        if longest_first:
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        return self._pattern.sub(_HIDDEN, text) if self._pattern is not None else text

    def error(self, error: LoomError) -> None:
        """Take them out of what an error tells its reader, in place."""
        if self._pattern is None:
            return
        error.message = self.text(error.message)
        error.args = (error.message,)
        if isinstance(error, ActionFailed):
            error.code, error.data = self.text(str(error.code)), self.value(error.data)

    def value(self, value: Any) -> Any:
        """The same for strings inside lists and dicts; what JSON cannot hold becomes its str."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))


class Formatter(logging.Formatter):
    """A record as one line of JSON, or of text for people."""

    def __init__(self, redactor: Redactor, as_json: bool) -> None:
        super().__init__()
        self._redactor = redactor
        self._json = as_json

    def entry(self, record: logging.LogRecord) -> dict[str, Any]:
        """time (ISO 8601, UTC), level, logger, message; plugin, trace_id, span_id, extra,
        exception where there are any."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {k: v for k, v in vars(record).items() if k not in _PLAIN}
        if plugin := fields.get("plugin"):
            found["plugin"] = plugin
        trace = parse_traceparent(str(fields.get("traceparent") or current.get()))
        if trace is not None:
            found["trace_id"], found["span_id"] = trace[:2]
        for name in ("trace_id", "span_id"):
            if name in fields:
                found[name] = fields.pop(name)
        if extra := {k: v for k, v in fields.items() if k not in _OURS}:
            found["extra"] = extra
        if record.exc_info and record.exc_info[0] is not None:
            found["exception"] = self.formatException(record.exc_info)
        cleaned: dict[str, Any] = self._redactor.value(found)
        return cleaned

    def format(self, record: logging.LogRecord) -> str:
        entry = self.entry(record)
        return json.dumps(entry, ensure_ascii=False) if self._json else text_line(entry)


def text_line(entry: dict[str, Any]) -> str:
    """An entry for people: time of day, level, who, message, extras."""
    who = entry.get("plugin") or entry["logger"]
    if "plugin" in entry:
        entry = {**entry, "message": visible(entry["message"])}
    extra = "".join(f" {key}={value}" for key, value in entry.get("extra", {}).items())
    line = f"{entry['time'][11:23]} {entry['level'].upper():7} {who}: {entry['message']}{extra}"
    return f"{line}\n{entry['exception']}" if "exception" in entry else line


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What would begin another line, or drive a terminal: a plugin may write neither."""


def visible(text: str) -> str:
    """One line of text that drives no terminal, whoever wrote it."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class _Levels:
    """The levels of loggers that the hosts of a process share: the lowest that one of them wants.

    They may close in any order, and run in threads of their own; after the last one each logger
    has the level that it had before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[str, int] = {}
        self._wanted: dict[str, list[int]] = {}

    def want(self, name: str, level: int) -> None:
        logger = logging.getLogger(name)
        with self._lock:
            self._before.setdefault(name, logger.level)
            wanted = self._wanted.setdefault(name, [])
            wanted.append(level)
            logger.setLevel(min(wanted))

    def unwant(self, name: str, level: int) -> None:
        with self._lock:
            wanted = self._wanted[name]
            wanted.remove(level)
            logging.getLogger(name).setLevel(min(wanted) if wanted else self._before.pop(name))


_levels = _Levels()


class Logs:
    """The logging of one host: its handlers, until `close`. Made by `configure`."""

    def __init__(
        self,
        stream: TextIO,
        level: int,
        as_json: bool,
        loggers: Sequence[str] = LOGGERS,
        redactor: Redactor | None = None,
    ) -> None:
        self.redactor = redactor or Redactor()
        formatter = Formatter(self.redactor, as_json)
        stream_handler = logging.StreamHandler(stream)
        stream_handler.setFormatter(formatter)
        stream_handler.setLevel(level)
        self._ring = Ring(formatter.entry)
        self._handlers: list[logging.Handler] = [stream_handler, self._ring]
        self._loggers = [logging.getLogger(name) for name in loggers]
        self._levels = {PLUGIN_LOGGER: logging.DEBUG}  # `loom logs` has them all
        self._levels |= dict.fromkeys(loggers, level)
        for name, wanted in self._levels.items():
            _levels.want(name, wanted)
        for logger in self._loggers:
            for handler in self._handlers:
                logger.addHandler(handler)

    def redact(self, values: Iterable[str]) -> None:
        """Hide these secrets in every line from now on."""
        self.redactor.add(values)

    def recent(self, plugin: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The last entries by time, of one plugin, of the host (`""`), or of all (None)."""
        return self._ring.entries(plugin)[-limit:] if limit > 0 else []

    def follow(
        self, plugin: str | None = None, level: int = logging.DEBUG
    ) -> tuple[list[dict[str, Any]], Follower]:
        """The entries of one plugin, or of all (None), from a level on; and a follower of more.

        Give it back to `unfollow`.
        """
        return self._ring.follow(plugin, level)

    def unfollow(self, follower: Follower) -> None:
        self._ring.unfollow(follower)

    def close(self) -> None:
        """Take the handlers off; the last host to close puts the levels back."""
        for name, wanted in self._levels.items():
            _levels.unwant(name, wanted)
        self._levels = {}
        for logger in self._loggers:
            for handler in self._handlers:
                logger.removeHandler(handler)


def configure(
    level: str = "info",
    json: bool = False,
    stream: TextIO | None = None,
    loggers: Sequence[str] = LOGGERS,
    redactor: Redactor | None = None,
) -> Logs:
    """Log the host's own loggers to `stream`, standard error by default.

    Records may carry `extra={"plugin": ..., "traceparent": ...}` and any other key.

    Raises:
        ValueError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level: use debug, info, warning or error")
    return Logs(stream or sys.stderr, number, json, loggers, redactor)
