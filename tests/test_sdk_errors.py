"""The error tree: one row each, and nothing lost on the wire."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import errors
from loom_sdk.errors import (
    TABLE,
    ActionFailed,
    ErrorInfo,
    LoomError,
    PermissionDenied,
    PluginError,
    QuotaExceeded,
    decode,
    encode,
    mapping_of,
)

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LoomError)
]
STATUSES = {"ACTION_ERROR", "ACTION_TIMEOUT", "ACTION_RETRYABLE"}


def test_every_error_has_its_row_and_stands_in_the_drawn_tree() -> None:
    assert set(TABLE) == set(KINDS)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in KINDS)
    assert all(kind.__doc__ for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_whole(kind: type[LoomError]) -> None:
    import grpc

    row = TABLE[kind]
    assert row.status in STATUSES
    assert hasattr(grpc.StatusCode, row.grpc)
    assert row.retryable == (row.status == "ACTION_RETRYABLE")


def test_codes_are_unique_but_for_the_plugins_own() -> None:
    codes = [row.code for kind, row in TABLE.items() if kind is not ActionFailed]
    assert len(codes) == len(set(codes))


TEXTS = st.text(max_size=20)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def loom_errors(draw: st.DrawFn) -> LoomError:
    kind = draw(st.sampled_from(KINDS))
    message = draw(TEXTS)
    if kind is ActionFailed:
        own = TEXTS.filter(lambda code: code not in errors._BY_CODE)
        return ActionFailed(message, code=draw(own | st.just("CAPABILITY_ERROR")))
    if kind is errors.CapabilityError:
        return ActionFailed(message)
    if not issubclass(kind, PluginError):
        return kind(message)
    fields: dict[str, Any] = {"plugin_id": draw(TEXTS)}
    if kind is PermissionDenied:
        fields["permission"] = draw(TEXTS)
    if kind is QuotaExceeded:
        message = message or "over"
        fields |= {"quota": draw(TEXTS), "limit": draw(NUMBERS), "used": draw(NUMBERS)}
    return kind(message, **fields)


@runs(max_examples=80, deadline=None)
@given(loom_errors())
def test_nothing_is_lost_on_the_wire(error: LoomError) -> None:
    info = encode(error)
    back = decode(info)
    assert type(back) is type(error)
    assert (back.message, str(back)) == (error.message, error.message)
    assert back.details() == error.details()
    assert getattr(back, "code", "") == getattr(error, "code", "")
    assert encode(back) == info


@runs(max_examples=80, deadline=None)
@given(st.sampled_from([*errors._BY_CODE, "OWN"]), TEXTS, TEXTS | st.sampled_from(
    ["[]", "1", "{}", '{"plugin_id": 1, "limit": "x", "used": null, "permission": []}']
))  # fmt: skip
def test_whatever_a_child_sends_becomes_an_error(code: str, message: str, details: str) -> None:
    error = decode(ErrorInfo(code, message, details))
    assert isinstance(error, LoomError)
    json.dumps(error.details())


def test_endlessly_nested_details_are_ignored() -> None:
    error = decode(ErrorInfo("PLUGIN_CRASHED", "m", "[" * 100_000))
    assert error.details() == {"plugin_id": ""}


def test_foreign_errors_are_failed_actions_with_their_class_named() -> None:
    info = encode(ValueError("not a number"))
    assert info == ("CAPABILITY_ERROR", "ValueError: not a number", "{}")
    assert mapping_of(ValueError()) is TABLE[ActionFailed]
    assert isinstance(decode(info), ActionFailed)


def test_an_authors_own_subclass_takes_its_parents_row() -> None:
    class TooHot(errors.PluginUnhealthy):
        pass

    assert mapping_of(TooHot("x")) is TABLE[errors.PluginUnhealthy]


def test_a_quota_tells_itself() -> None:
    error = QuotaExceeded(plugin_id="a/p", quota="memory", limit=1, used=2)
    assert error.message == "a/p: quota memory exceeded (limit 1, used 2)"
