"""What belongs to the host's process and not to a native plugin in it."""

from __future__ import annotations

import locale
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessState:
    """At one moment."""

    environment: Mapping[str, str]
    folder: str
    """The working directory."""
    path: tuple[str, ...]
    signals: Mapping[int, Any]
    log_handlers: tuple[logging.Handler, ...]
    """Of the root logger; likewise the next two."""
    log_filters: tuple[Any, ...]
    log_level: int
    umask: int
    locale: str

    @classmethod
    def now(cls) -> ProcessState:
        root = logging.getLogger()
        return cls(
            dict(os.environ), os.getcwd(), tuple(sys.path),
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            tuple(root.handlers), tuple(root.filters), root.level, _umask(),
            locale.setlocale(locale.LC_ALL),
        )  # fmt: skip

    def changes(self, since: ProcessState, plugin: Path) -> list[str]:
        """In words, what is not as it was. The host itself puts a plugin's folder on sys.path."""
        found = []
        keys = self.environment.keys() | since.environment.keys()
        if names := [k for k in keys if self.environment.get(k) != since.environment.get(k)]:
            found.append(f"the environment ({', '.join(sorted(names))})")
        if self.folder != since.folder:
            found.append(f"the working directory ({self.folder})")
        mine = {str(plugin)}
        if [p for p in self.path if p not in mine] != [p for p in since.path if p not in mine]:
            found.append("sys.path")
        found += [f"the handler of {_name(n)}" for n, h in self.signals.items()
                  if h != since.signals.get(n)]  # fmt: skip
        if self._logging != since._logging:
            found.append("the root logger")
        if self.umask != since.umask:
            found.append(f"the umask ({self.umask:03o})")
        if self.locale != since.locale:
            found.append(f"the locale ({self.locale})")
        return found

    @property
    def _logging(self) -> tuple[Any, ...]:
        return self.log_handlers, self.log_filters, self.log_level

    def restore(self) -> None:
        """Make it so again, for whoever goes on in this process."""
        os.chdir(self.folder)
        os.umask(self.umask)
        for key in os.environ.keys() - self.environment.keys():
            del os.environ[key]
        os.environ.update(self.environment)
        sys.path[:] = self.path
        locale.setlocale(locale.LC_ALL, self.locale)
        root = logging.getLogger()
        root.handlers[:], root.filters[:] = self.log_handlers, self.log_filters
        root.setLevel(self.log_level)
        for number, handler in self.signals.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


def _umask() -> int:
    """proc_pid_status(5): to ask the system is to set it."""
    found = re.search(r"^Umask:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 8) if found else 0


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
