"""What the host tells a plugin of the call that it serves."""

from __future__ import annotations

from typing import Any

import pytest

from loom_host.caller import caller_of
from loom_host.desk import Desk, card_of
from loom_host.handle import InFlight
from loom_host.manifest import Permissions
from loom_host.privacy import LEVEL_OF
from loom_host.storage import MemoryStore
from loom_sdk.errors import ActionFailed

from .hosting import handle_of, offers

LABELLED = Permissions(labels=("private",))
HANDLES = {
    "plain": handle_of("plain", offers("plain.do")),
    "labelled": handle_of("labelled", offers("labelled.do"), permissions=LABELLED),
}


def told(caller: str, level: str = "sensitive", parent: InFlight | None = None) -> dict[str, Any]:
    flight = InFlight("1", "memory", caller, level=LEVEL_OF[level], parent=parent)
    return caller_of(flight, HANDLES, {"labelled": "ann"}.get)  # type: ignore[arg-type]


def test_a_plugin_an_agent_the_operator_and_a_client_are_told_apart() -> None:
    def who(caller: str, agent: str | None) -> tuple[Any, ...]:
        answer = caller_of(InFlight("1", "m", caller), HANDLES, lambda _: agent or "")
        return answer["kind"], answer["caller"], answer["agent"]

    assert who("plain", None) == ("plugin", "plain", "")
    assert who("labelled", "ann") == ("plugin", "labelled", "ann")
    assert who("host", "ann") == ("host", "host", "")
    assert who("client:laptop", "ann") == ("client", "client:laptop", "")


def test_an_agent_with_a_state_has_its_own_name() -> None:
    desk = Desk(MemoryStore(), card_of("agent-17", {}, 0))
    assert told("labelled", parent=InFlight("0", "labelled", desk=desk))["agent"] == "agent-17"


@pytest.mark.parametrize(
    ("caller", "level", "reads"),
    [
        ("plain", "public", "public"),
        ("plain", "sensitive", "sensitive"),
        ("plain", "private", "sensitive"),
        ("labelled", "sensitive", "sensitive"),
        ("labelled", "private", "private"),
        ("labelled", "local-only", "private"),
        ("client:laptop", "sensitive", "sensitive"),
        ("host", "public", "local-only"),
    ],
)
def test_a_caller_reads_up_to_its_turn_and_its_label(caller: str, level: str, reads: str) -> None:
    answer = told(caller, level)
    assert (answer["privacy"], answer["reads"]) == (level, reads)


def test_who_serves_no_call_is_told_so() -> None:
    with pytest.raises(ActionFailed, match="ask while you serve one") as caught:
        caller_of(None, HANDLES, lambda _: "")
    assert caught.value.code == "NO_CALL"
