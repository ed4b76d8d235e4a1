"""Takes and gives dataclasses, enums, sets and tuples. The same source runs in every tier."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal, NamedTuple, NotRequired, TypedDict

from loom_sdk import Context, Field, Plugin, capability, tool


class Mode(Enum):
    """How one travels."""

    RAIL = "rail"
    ROAD = "road"


class Point(NamedTuple):
    lat: float
    lon: float = 0.0


class Options(TypedDict):
    quiet: bool
    seats: NotRequired[Annotated[int, Field(ge=1, le=9)]]


@dataclass(frozen=True)
class Place:
    """A town.

    Attributes:
        name: As its people call it.
    """

    name: Annotated[str, Field(min_length=1, pattern="^[A-Z]")]
    at: Point | None = None


@dataclass
class Plan:
    start: Place
    stops: tuple[Place, ...] = ()
    mode: Mode = Mode.RAIL
    marks: set[str] = field(default_factory=set)
    options: Options | None = None

    def __post_init__(self) -> None:
        if self.start in self.stops:
            raise ValueError(f"{self.start.name} is where it starts")


class Traveller(Plugin):
    @tool("traveller.plan", effects="none")
    def plan(self, ctx: Context, plan: Plan, days: Annotated[int, Field(ge=1, le=30)] = 1) -> Plan:
        """Make a plan longer.

        Args:
            plan: What there is.
            days: How many,
                at most thirty.
        """
        assert isinstance(plan, Plan)
        assert isinstance(plan.mode, Mode)
        assert isinstance(days, int)
        last = Place(f"Day {days}", Point(days, 0.5))
        other = Mode.ROAD if plan.mode is Mode.RAIL else Mode.RAIL
        marks = plan.marks | {type(plan.start.at).__name__}
        return Plan(plan.start, (*plan.stops, last), other, marks, plan.options)

    @capability("traveller.sort", effects="none")
    def sort(
        self, ctx: Context, modes: set[Mode], sizes: dict[Mode, int] | None = None
    ) -> list[tuple[Mode, int]]:
        """Count modes.

        :param modes: Which ones.
        :param sizes: How many of each.
        """
        known = sizes or {}
        return [(mode, known.get(mode, 0)) for mode in Mode if mode in modes]

    @capability("traveller.stages", effects="none")
    def stages(self, ctx: Context, how: Literal["emit", "invoke", "wrong"]) -> dict[str, Place]:
        """Instances on other ways out.

        Parameters
        ----------
        how : str
            Which way.
        """
        place = Place("Ulm", Point(48.4, 10.0))
        if how == "emit":
            ctx.emit({"at": [place]})
        if how == "invoke":
            ctx.invoke("traveller.plan", {"plan": Plan(place)})
        return {"wrong": object() if how == "wrong" else place}  # type: ignore[dict-item]
