"""What ended a guest, as Loom's errors: the border that wasmtime's errors do not cross."""

from __future__ import annotations

from dataclasses import dataclass

from wasmtime import ExitTrap, WasmtimeError

from loom_sdk.errors import (
    DeadlineExceeded,
    PluginCrashed,
    PluginError,
    PluginLoadError,
    QuotaExceeded,
)

from .ticket import Ticket
from .values import MAX_BINARY

_COPY_LIMIT = "fuel allocated for hostcalls has been exhausted"
_MEMORY_WORDS = ("memory minimum size of", "exceeds memory limits", "memory limit")
_NOT_LINKED = "a matching implementation was not found in the linker"
_NEARLY_FULL = 0.9
_WORTH_TELLING = 0.25
_UNREACHABLE = "wasm `unreachable` instruction executed"
_PYTHON_NEEDS = 16 * 1024**2
_STORE_WORDS = ("resource limit exceeded", "exceeds table limits")
STORE_LIMITS = {"tables": 16, "instances": 200, "memories": 4}
"""Of a guest, its linear memories each within the quota memory. A Python or JavaScript guest has
two memories with ours, two tables of 8,000 elements and at most 16 instances."""
_NO_FUEL = "all fuel consumed"


@dataclass(frozen=True, slots=True)
class Limits:
    """Quotas that the engine itself holds a guest to. Bytes and seconds; `cpu_s` 0 is none."""

    plugin_id: str
    memory: int
    output_bytes: int
    cpu_s: float = 0.0
    tables: int = 100_000
    """Elements of each table."""
    metered: bool = False
    """Whether the engine counts fuel."""
    direct: bool = True
    """Which marshaller is used; see `contract.Loaded`."""
    stateless: bool = False
    """Whether the guest keeps nothing between calls, so that it may be renewed early."""
    python: bool = False
    """Whether the guest is built from Python."""


def stopped(ticket: Ticket, limits: Limits) -> PluginError:
    """The error for a guest that was told to stop."""
    who = limits.plugin_id
    took = ticket.elapsed_us() / 1000
    if ticket.reason == "cpu":
        used = ticket.cpu_used_s()
        return QuotaExceeded(plugin_id=who, quota="cpu", limit=limits.cpu_s, used=round(used, 3))
    if ticket.reason == "deadline":
        return DeadlineExceeded(
            f"{who} was stopped after {took:.0f} ms: raise its quota deadline_ms or give it less "
            "work",
            plugin_id=who,
        )
    return PluginCrashed(f"{who} was stopped: the call was {ticket.reason}", plugin_id=who)


def too_large(size: int, limits: Limits) -> QuotaExceeded:
    return QuotaExceeded(
        plugin_id=limits.plugin_id,
        quota="output_bytes",
        limit=limits.output_bytes,
        used=size,
    )


def translated(
    error: WasmtimeError, ticket: Ticket, limits: Limits, memory_bytes: int
) -> PluginError:
    """The error of the tree that a trap, an exit or a refused instantiation becomes.

    Args:
        memory_bytes: of the guest's largest linear memory, which is what the quota limits.
    """
    who = limits.plugin_id
    if ticket.reason:
        return stopped(ticket, limits)
    if isinstance(error, ExitTrap):
        return PluginCrashed(f"{who} exited by itself with code {error.code}", plugin_id=who)
    text = str(error)
    if _COPY_LIMIT in text:
        return _too_large_at_once(limits)
    if _NO_FUEL in text:
        return QuotaExceeded(plugin_id=who, quota="fuel", limit=ticket.fuel, used=ticket.fuel_used)
    if any(words in text for words in _STORE_WORDS):
        return _too_many(text, limits)
    if _NOT_LINKED in text:
        return _not_linked(who, text)
    if any(words in text for words in _MEMORY_WORDS):
        return _out_of_memory(f"it does not start: {_cause(text)}", memory_bytes, limits)
    if memory_bytes >= limits.memory * _NEARLY_FULL:
        return _out_of_memory("out of memory", memory_bytes, limits)
    room = _room(memory_bytes, limits) if _UNREACHABLE in text else ""
    return PluginCrashed(f"{who} trapped: {_cause(text)}{room}", plugin_id=who)


def _room(memory_bytes: int, limits: Limits) -> str:
    """A guest that aborts may do so because it was refused memory: nobody but itself knows."""
    if memory_bytes < limits.memory * _WORTH_TELLING:
        return ""
    return (
        f" (an abort of its own, or it was refused memory: it has {memory_bytes} of the "
        f"{limits.memory} bytes of its quota memory)"
    )


def _too_large_at_once(limits: Limits) -> QuotaExceeded:
    limit = min(limits.output_bytes, MAX_BINARY)
    return QuotaExceeded(
        f"{limits.plugin_id} returned more than {limit} bytes at once: emit it in pieces (quota "
        f"output_bytes = {limits.output_bytes}, and {MAX_BINARY} for one binary in wasm)",
        plugin_id=limits.plugin_id,
        quota="output_bytes",
        limit=limit,
        used=limit + 1,
    )


def _too_many(text: str, limits: Limits) -> QuotaExceeded:
    most_of = ", ".join(f"{most} {what}" for what, most in STORE_LIMITS.items())
    return QuotaExceeded(
        f"{limits.plugin_id}: {_cause(text)} (quota tables = {limits.tables} elements; a guest "
        f"has at most {most_of})",
        plugin_id=limits.plugin_id,
        quota="tables",
        limit=limits.tables,
        used=limits.tables + 1,
    )


def _out_of_memory(what: str, memory_bytes: int, limits: Limits) -> QuotaExceeded:
    python = limits.python and limits.memory < _PYTHON_NEEDS
    hint = ", a Python guest needs at least 16 MiB" if python else ""
    return QuotaExceeded(
        f"{limits.plugin_id}: {what} (quota memory = {limits.memory} bytes): raise it{hint}",
        plugin_id=limits.plugin_id,
        quota="memory",
        limit=limits.memory,
        used=max(memory_bytes, limits.memory),
    )


def _not_linked(who: str, text: str) -> PluginLoadError:
    imported = text.partition("`")[2].partition("`")[0]
    return PluginLoadError(
        f"{who} imports from {imported} what Loom does not offer: {_cause(text)}", plugin_id=who
    )


def _cause(text: str) -> str:
    """The last cause of wasmtime's message, without the numbering and the backtrace."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "unknown"
    return last.split(": ", 1)[1] if last[:1].isdigit() and ": " in last else last
