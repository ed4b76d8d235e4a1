"""Tries the providers of a call in turn, as far as its effects allow, and notes who failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from loom_sdk import Result
from loom_sdk.errors import (
    CapabilityNotFound,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    ModelMissing,
    NoProvider,
    OutcomeUnknown,
    PluginCrashed,
    PluginLoadError,
    PluginUnhealthy,
    ProtocolMismatch,
    QuotaExceeded,
    mapping_of,
)

from .announce import Announcer
from .circuit import CLOSED
from .dispatch import REPEATABLE, Request, Stalled
from .handle import Replaced
from .registry import Offer, validate
from .runtimes.base import NotReached
from .settings import RoutingSettings

MAX_ATTEMPTS = 3

Attempt = Callable[[Offer, Request], Awaitable[Result]]
Again = Callable[[Request], Awaitable[Sequence[Offer]]]
"""Whom to try, asked anew after one of them was replaced."""

_OWN = (PluginCrashed, PluginUnhealthy, PluginLoadError, ProtocolMismatch, ModelMissing)
_INNOCENT = (InvalidArguments, QuotaExceeded, CapabilityNotFound, NoProvider, DeadlineExceeded)


class Failover:
    """One call over several providers.

    Args:
        attempt: makes one call of one provider.
        clock: seconds, for circuits and what is measured.
    """

    def __init__(
        self,
        attempt: Attempt,
        limits: RoutingSettings,
        clock: Callable[[], float],
        announce: Announcer,
    ) -> None:
        self._attempt = attempt
        self._limits = limits
        self._clock = clock
        self._announce = announce

    async def run(
        self,
        request: Request,
        offers: Sequence[Offer],
        checked: Offer,
        again: Again,
        *,
        standby: bool = False,
    ) -> Result:
        """The first answer. Raises the last error where nobody may be tried any more.

        The arguments fit `checked` already; with `standby` others go on where these fail.
        """
        tries, place = max(len(offers), MAX_ATTEMPTS), 0
        while True:
            tries -= 1
            offer = offers[place % len(offers)]
            if offer is not checked:
                validate(offer, request.arguments)
            if request.on_item is not None:
                self._hurry(offer, request, standby or place < len(offers) - 1)
            probing = offer.handle.circuit.state != CLOSED and self._is_probe(offer)
            began = time.monotonic()
            try:
                result = await self._attempt(offer, request)
                self.blame(request, result.provider)
                return result
            except Replaced:
                if time.monotonic() >= request.deadline:
                    raise _never_placed(offer, request) from None
                await asyncio.sleep(0)
                offers, place = await again(request), 0
                tries += 1  # it was not one: the plugin never saw the call
            except LoomError as error:
                self._note(offer, request, error, time.monotonic() - began)
                if not tries or not may_go_on(offer, request, error, len(offers)):
                    raise
                place += 1
                await self._go_on(offer, offers[place % len(offers)], request, error)
            finally:
                if probing:  # does nothing once it was decided
                    offer.handle.circuit.undecided(self._clock())

    def _is_probe(self, offer: Offer) -> bool:
        probing = offer.handle.circuit.begin(self._clock())
        if probing:
            self._announce.circuit(offer.handle)
        return probing

    def _hurry(self, offer: Offer, request: Request, others: bool) -> None:
        """Set how long a stream's first item may take; no limit where nobody could go on."""
        hurry = others and not request.delivered and offer.spec.effects in REPEATABLE
        request.first_item_s = self._limits.first_item_ms / 1000 if hurry else 0.0

    async def _go_on(self, old: Offer, new: Offer, request: Request, error: LoomError) -> None:
        if new is not old:
            self._announce.switched(request, old.handle, new.handle, error)
        elif isinstance(error, PluginCrashed | PluginUnhealthy):
            await old.handle.noticed()

    def _note(self, offer: Offer, request: Request, error: LoomError, took_s: float) -> None:
        if self._is_own(offer, error, took_s):
            self._fail(offer, error, own=True)
        elif not isinstance(error, _INNOCENT):
            request.suspects = (*request.suspects, (offer, error))

    def _is_own(self, offer: Offer, error: LoomError, took_s: float) -> bool:
        """Whether the fault is this provider's for certain, whatever the call."""
        if isinstance(error, OutcomeUnknown) and isinstance(error.__cause__, LoomError):
            error = error.__cause__
        if isinstance(error, ModelMissing):
            return True
        if getattr(error, "plugin_id", "") != offer.handle.spec.id:
            return False  # that of one which it called
        if isinstance(error, DeadlineExceeded) and not isinstance(error, Stalled):
            patience_ms = self._limits.first_item_ms
            return 0 < patience_ms <= took_s * 1000  # else its caller was in a hurry
        return isinstance(error, (*_OWN, Stalled))

    def _fail(self, offer: Offer, error: LoomError, *, own: bool) -> None:
        now, handle = self._clock(), offer.handle
        offer.seen.failed(now)
        reason = error.message.partition("\n")[0]
        if handle.circuit.failed(now, self._limits, reason, own=own):
            self._announce.circuit(handle)

    def blame(self, request: Request, answered: str) -> None:
        """Another provider answered the same call, so those that failed it were at fault."""
        for offer, error in request.suspects:
            if offer.handle.name != answered:
                self._fail(offer, error, own=False)
        request.suspects = ()

    def served(self, offer: Offer, request: Request, began: float, ended: float) -> None:
        """A provider answered. Times on the performance counter."""
        first = request.first_at
        took_s = (first if first > began else ended) - began
        offer.seen.answered(took_s * 1000, self._clock())
        circuit = offer.handle.circuit
        if circuit.failures and circuit.served():
            offer.seen.forgive()
            self._announce.circuit(offer.handle)


def _never_placed(offer: Offer, request: Request) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{request.capability}: {offer.handle.name} was replaced again and again until the "
        "call's time was up; the call was not made: repeat it when the swaps are done",
        plugin_id=offer.handle.spec.id,
    )


def may_go_on(offer: Offer, request: Request, error: LoomError, candidates: int) -> bool:
    """Whether another try may be made after `error`."""
    if request.delivered and not offer.spec.resumable:
        return False
    if time.monotonic() >= request.deadline:
        return False
    if not request.dispatched and (candidates > 1 or isinstance(error, NotReached)):
        return True  # the plugin never saw the call: whatever its effects are
    if offer.spec.effects not in REPEATABLE:
        return False
    return mapping_of(error).retryable or (
        candidates > 1 and not isinstance(error, InvalidArguments)
    )
