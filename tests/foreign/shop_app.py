"""A shop, written against componentize-py's bindings alone."""

# mypy: ignore-errors

from typing import Any

import wit_world
from componentize_py_types import Err, Ok, Some
from wit_world.imports.types import (
    Payment_Card,
    Payment_Cash,
    Payment_Voucher,
    Refusal_Closed,
    Refusal_SoldOut,
)


class WitWorld(wit_world.WitWorld):
    def say_hello(self, name: str) -> str:
        return f"Hello {name}"


class Orders:
    def place(self, items: list, paid: Any, extras: Any) -> list:
        if not items:
            raise Err(Refusal_Closed())
        for item in items:
            if item.count > 99:
                raise Err(Refusal_SoldOut(item.name))
        match paid:
            case Payment_Cash():
                how = "cash"
            case Payment_Card(number):
                how = f"card {number}"
            case Payment_Voucher((number, value)):
                how = f"voucher {number} {value}"
        lines = [f"{i.count} {i.name} {i.size.name} {i.note}" for i in items]
        return [*lines, how, str(extras)]

    def label(self, picture: bytes, initial: str, flag: bool) -> bytes:
        return initial.encode() + bytes([flag]) + picture[::-1]

    def widest(self, *numbers: Any) -> tuple:
        return numbers

    def outcome(self, past: Any) -> Any:
        if isinstance(past, Ok) and past.value == 0:
            return None
        if isinstance(past, Err) and not past.value:
            return Some(None)
        return Some(past)

    def open_basket(self) -> Any:
        raise NotImplementedError

    def crash(self) -> str:
        raise RuntimeError("a bug")


class Basket:
    def add(self, what: Any) -> None:
        raise NotImplementedError
