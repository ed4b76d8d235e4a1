"""pydantic models as arguments and answers."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, Field, computed_field, field_validator

from loom_sdk import Context, Plugin, tool


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Item(BaseModel):
    name: str = Field(min_length=1, description="What it is.")
    price: float = Field(ge=0, alias="unitPrice")
    size: Size = Size.SMALL


class Order(BaseModel):
    """What somebody wants."""

    items: list[Item]
    due: date | None = None
    tags: set[str] = Field(default_factory=set)

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def total(self) -> float:
        return sum(item.price for item in self.items)

    @field_validator("items")
    @classmethod
    def not_empty(cls, items: list[Item]) -> list[Item]:
        if not items:
            raise ValueError("an order without items")
        return items


class Modeller(Plugin):
    @tool("modeller.order", effects="none")
    def order(
        self,
        ctx: Context,
        order: Order,
        more: Annotated[list[Item], Field(max_length=2)] = [],  # noqa: B006
    ) -> Order:
        """Add to an order.

        Args:
            more: What else.
        """
        assert isinstance(order, Order)
        assert order.due is None or isinstance(order.due, date)
        assert all(isinstance(item, Item) for item in more)
        return Order(items=[*order.items, *more], due=order.due, tags=order.tags)
