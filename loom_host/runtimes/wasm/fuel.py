"""Fuel: how many WebAssembly instructions a call takes, counted by the guest's own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from wasmtime import Store

from .ticket import Ticket

T = TypeVar("T")

_PLENTY = 1 << 62


def metered(store: Store, ticket: Ticket, run: Callable[[], T]) -> T:
    """Run guest code on what is left of the ticket's fuel, and count what it took."""
    given = max(0, ticket.fuel - ticket.fuel_used) if ticket.fuel else _PLENTY
    store.set_fuel(given)
    try:
        return run()
    finally:
        ticket.fuel_used += given - store.get_fuel()
