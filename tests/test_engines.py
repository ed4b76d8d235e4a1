"""What engines agree on: the same sound and text is taken or refused, whichever engine gets it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk.engines import MAX_CHARS, Factor, Message, check_text, checked_pcm
from loom_sdk.errors import InvalidArguments
from loom_sdk.schema import schema_of
from loom_sdk.schema_refs import inlined


@given(st.binary(max_size=64), st.sampled_from(["", "audio/pcm", "audio/pcm; rate=16000; a=b"]))
def test_whole_samples_come_back_unchanged_and_half_ones_are_refused(
    payload: bytes, content_type: str
) -> None:
    if len(payload) % 2:
        with pytest.raises(InvalidArguments, match=f"{len(payload)} bytes are no whole number"):
            checked_pcm(payload, content_type)
    else:
        assert checked_pcm(payload, content_type) == payload


@given(st.text(max_size=30))
def test_any_content_type_is_taken_or_refused_with_the_format_wanted(content_type: str) -> None:
    try:
        checked_pcm(b"", content_type)
    except InvalidArguments as refused:
        assert "audio/pcm;rate=16000" in refused.message
    else:
        assert content_type.partition(";")[0].strip() in ("", "audio/pcm")


def test_a_text_may_be_as_long_as_the_limit_and_no_longer() -> None:
    check_text("a" * MAX_CHARS)
    with pytest.raises(InvalidArguments, match="10001 letters, at most 10000: split the text"):
        check_text("a" * (MAX_CHARS + 1))


def test_the_shared_types_have_the_schema_that_callers_see() -> None:
    assert schema_of(Factor) == {"type": "number", "minimum": 0.5, "maximum": 2.0}
    message = inlined(schema_of(Message))
    assert message["properties"]["role"] == {"enum": ["system", "user", "assistant", "tool"]}
    assert message["properties"]["content"] == {"type": "string"}
    assert message["required"] == ["content", "role"]
    call = message["properties"]["tool_calls"]["items"]
    assert call["required"] == ["arguments", "id", "name"]
