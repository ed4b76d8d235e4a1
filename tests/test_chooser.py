"""What reaches the router from the host: events being served, policies, quotas; what is told."""

from __future__ import annotations

from typing import Any

import pytest

from loom_host.chooser import raised
from loom_host.manifest import Permissions
from loom_host.privacy import LEVEL_OF, NAMES
from loom_host.runtimes.fake import Hear, Serve
from loom_host.settings import PRIVACY, PluginSettings, Policy
from loom_sdk import Call, Event, Result
from loom_sdk.errors import CapabilityNotFound, LoomError, NoProvider
from loom_sdk.port import AsyncPort

from .hosting import Rig, answering, failing, handle_of, hears, next_of, offers, until

WAY_OUT = Permissions(network=("https://far.test",))


def test_privacy_is_raised_and_never_lowered() -> None:
    assert PRIVACY == NAMES
    for own in PRIVACY:
        for other in PRIVACY:
            policy = raised(Policy(privacy=own), LEVEL_OF[other])
            assert LEVEL_OF[policy.privacy] == max(LEVEL_OF[own], LEVEL_OF[other])


def asker(told: list[str]) -> Hear:
    """Invokes `x.do` for each event, and notes who answered or what it was told."""

    async def hear(event: Event, services: AsyncPort) -> None:
        call = Call("x.do", {}, parent_call_id=event.id)
        try:
            told.append((await services.invoke(call)).provider)
        except LoomError as error:
            told.append(error.message)

    return hear


def rig_with(told: list[str], near: Serve, policy: Policy, quality: float = 0.9) -> Rig:
    """Events on `ask` make the agent `voice` call `x.do` of `near` (local) and `far` (cloud)."""
    offer = offers("x.do")
    permissions = Permissions(invoke=("x.do",), labels=("private", "local-only"))
    agent = handle_of("agent", subscribes=[hears("ask")], permissions=permissions)
    rig = Rig(
        agent,
        handle_of("near", offer, settings=PluginSettings(quality=quality)),
        handle_of("far", offer, settings=PluginSettings(quality=0.95), permissions=WAY_OUT),
        serve={"near": {"x.do": near}, "far": {"x.do": answering("far")}},
        hear={"agent": asker(told)},
        providers={"x.do": ("near", "far")},
        policies={"voice": policy},
    )
    for pump in rig.pumps:
        pump._agent = "voice"
    return rig


NO_CLOUD = ("private", "local-only")
DOWN = failing(LoomError("near is down"))


@pytest.mark.parametrize("key", ["privacy", "routing.privacy"])
@pytest.mark.parametrize("of_agent", PRIVACY)
@pytest.mark.parametrize("of_event", ["", *PRIVACY, "secret"])
async def test_the_event_being_served_may_raise_the_privacy_of_its_agent_and_never_lower_it(
    key: str, of_agent: str, of_event: str
) -> None:
    told: list[str] = []
    metadata = {key: of_event} if of_event else {}
    async with rig_with(told, DOWN, Policy(privacy=of_agent)) as rig:
        await rig.bus.publish("ask", Event("ask", metadata=metadata))
        await until(lambda: told)
    closed = of_agent in NO_CLOUD or of_event in (*NO_CLOUD, "secret")
    assert told == ["near is down" if closed else "far"]


@pytest.mark.parametrize(
    ("confidence", "quality", "route"),
    [(1.0, 0.9, "Local"), (0.6, 0.9, "Hybrid"), (0.4, 0.9, "Cloud"), (0.9, 0.1, "Local")],
)
async def test_the_confidence_of_the_event_stands_before_the_operators_quality(
    confidence: float, quality: float, route: str
) -> None:
    told: list[str] = []
    async with rig_with(told, answering("near"), Policy(), quality) as rig:
        heard = rig.bus.subscribe("agent.voice", types=("routing_decision",))
        await rig.bus.publish("ask", Event("ask", confidence=confidence))
        decided = (await next_of(heard)).metadata
        assert decided["route"] == route
        if route != "Cloud":
            assert decided["confidence"] == f"{confidence if confidence < 1 else quality:.3f}"
        await until(lambda: told)


async def test_a_decision_is_an_event_of_its_agent_with_all_estimates() -> None:
    handles = [
        handle_of("near", offers("x.do"), settings=PluginSettings(quality=0.4)),
        handle_of(
            "far", offers("x.do"), settings=PluginSettings(quality=0.95, cost=0.0021),
            permissions=WAY_OUT,
        ),
    ]  # fmt: skip
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(1)} for h in handles}
    async with Rig(*handles, serve=serve, providers={"x.do": ("near", "far")}) as rig:
        heard = rig.bus.subscribe("agent.voice")
        await rig.invoke("x.do", agent="voice")
        event = await next_of(heard)
        assert (event.type, event.priority, event.source) == ("routing_decision", 50, "host")
        assert dict(event.metadata) == {
            "capability": "x.do", "caller": "host", "route": "Cloud", "providers": "far,near",
            "reason": "Default to cloud for quality", "confidence": "0.950",
            "est_latency_ms": "500", "est_cost": "0.0021", "privacy": "sensitive",
        }  # fmt: skip
        await rig.invoke("x.do", agent="voice")
        measured = (await next_of(heard)).metadata["est_latency_ms"]
        assert float(measured) < 500
        assert rig.routes == [("Cloud", "Default to cloud for quality")] * 2


async def test_an_only_local_provider_leaves_nothing_to_decide_and_nothing_to_tell() -> None:
    async with Rig(handle_of("p", offers("p.do")), serve={"p": {"p.do": answering(1)}}) as rig:
        heard = rig.bus.subscribe("loom.routing")
        await rig.invoke("p.do")
        assert not heard.depth
        assert rig.routes == [("Local", "Only provider")]


async def test_no_match_is_no_provider_and_an_event_that_says_why() -> None:
    cloud = handle_of("far", offers("x.do"), permissions=WAY_OUT)
    async with Rig(cloud, serve={"far": {"x.do": answering(1)}}) as rig:
        heard = rig.bus.subscribe("loom.routing")
        with pytest.raises(NoProvider, match=r"x.do: Privacy policy requires .* \(far: cloud\)"):
            await rig.invoke("x.do", policy=Policy(privacy="local-only"))
        told = (await next_of(heard)).metadata
        assert (told["route"], told["providers"], told["confidence"]) == ("Drop", "", "0.000")
        assert told["reason"] == "Privacy policy requires local-only processing (far: cloud)"
        with pytest.raises(CapabilityNotFound):
            await rig.invoke("x.done")
        assert (await next_of(heard)).metadata["reason"].startswith("nobody offers 'x.done'")
        assert rig.unrouted == ["x.do", "x.done"]


async def test_what_is_explained_is_what_is_decided_and_changes_nothing() -> None:
    handles = [
        handle_of("near", offers("x.do"), settings=PluginSettings(quality=0.6)),
        handle_of("dear", offers("x.do"), settings=PluginSettings(cost=1.0), permissions=WAY_OUT),
        handle_of("gone", offers("x.do")),
    ]
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(1)} for h in handles}
    order = ("dear", "near", "gone")
    async with Rig(*handles, serve=serve, providers={"x.do": order}) as rig:
        rig.handles["gone"].become("failed", "no disk")
        explained: dict[str, Any] = rig.broker.explain("x.do", Policy())
        assert explained["decision"]["reason"] == "Cloud cost exceeds budget"
        assert [(r["name"], r["verdict"]) for r in explained["candidates"]] == [
            ("dear", "cost 1 is above cost_cap 0.01"),
            ("near", "chosen"),
            ("gone", "failed no disk"),
        ]
        assert rig.routes == []
        assert (await rig.invoke("x.do")).provider == "near"


async def test_an_agent_whose_name_is_no_topic_is_served_all_the_same() -> None:
    handles = [handle_of(name, offers("x.do")) for name in "ab"]
    serve: dict[str, dict[str, Serve]] = {h.name: {"x.do": answering(1)} for h in handles}
    async with Rig(*handles, serve=serve) as rig:
        assert (await rig.invoke("x.do", agent="a b >")).output == 1


async def test_what_is_below_a_call_has_at_least_its_privacy() -> None:
    async def through(call: Call, services: AsyncPort) -> Result:
        return await services.invoke(Call("x.do", {}, parent_call_id=call.id))

    middle = handle_of("m", offers("m.do"), permissions=Permissions(invoke=("x.do",)))
    cloud = handle_of("far", offers("x.do"), permissions=WAY_OUT)
    serve: dict[str, dict[str, Serve]] = {
        "m": {"m.do": through},
        "far": {"x.do": answering(1)},
    }
    async with Rig(middle, cloud, serve=serve) as rig:
        assert (await rig.invoke("m.do")).output == 1
        with pytest.raises(NoProvider, match=r"forbids cloud processing \(far: cloud\)"):
            await rig.invoke("m.do", policy=Policy(privacy="private"))
