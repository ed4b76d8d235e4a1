"""The conformance kit's own Session with a child: slow to take, and within the rules itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import grpc
import pytest

from loom_host.conformance.by_hand import by_hand
from loom_host.conformance.by_session import admitted_to_session, session
from loom_host.conformance.kit import Fault
from loom_host.conformance.plan import Example, plan_of
from loom_host.conformance.subject import Subject
from loom_sdk.frames import MAX_MESSAGE, WINDOW

MANIFEST = """
[plugin]
id = "test/many"
version = "1.0.0"
api = "1"
type = "tool"
tier = "grpc"
entry = "many:Many"

[permissions]
storage = true

[[capability]]
name = "many.items"
effects = "none"
"""
CODE = """
from loom_sdk import Context, Plugin, capability


class Many(Plugin):
    @capability("many.items", effects="none")
    def items(self, ctx: Context, count: int, size: int = 1) -> dict:
        for number in range(count):
            ctx.kv.put("key", b"x" * size)
            ctx.emit(number, ctx.kv.get("key"), "text/plain")
        return {"heard": len(ctx.payload)}
"""


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "many.py").write_text(CODE)
    return Subject(plan_of(tmp_path), "grpc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size", "payload"),
    [(3 * WINDOW + 4, 1, b""), (2, 40 * MAX_MESSAGE, b""), (1, 1, bytes(40 * MAX_MESSAGE))],
    ids=["items", "large-items", "large-call"],
)
async def test_a_child_of_the_sdk_goes_on_when_it_is_given_credit(
    count: int, size: int, payload: bytes, subject: Subject
) -> None:
    (spec,) = subject.plan.manifest.capabilities
    asked = Example(spec, {"count": count, "size": size}, payload=payload)
    async with subject, by_hand(subject) as hand, session(hand) as taker:
        assert taker is not None
        *items, end = await taker.messages(asked)
        assert [(item.output, len(item.payload)) for item in items] == [
            (str(number), size) for number in range(count)
        ]
        assert end.output == json.dumps({"heard": len(payload)})


async def test_whoever_has_no_token_is_told_apart_from_whoever_has_no_session(
    subject: Subject,
) -> None:
    async with subject, by_hand(subject) as hand:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await admitted_to_session(hand, ())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await admitted_to_session(hand, hand.metadata)


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        ("oversize", "a message of 20.* bytes: at most 65536"),
        ("beyond_credit", "more than 32 items and chunks of one answer that nobody took"),
        ("endless_chunks", "more than 32 items and chunks of one answer that nobody took"),
        ("chunks_of_garbage", "chunks that are no frame when joined"),
        ("ends", "it ends its Session by itself"),
    ],
)
async def test_a_child_that_breaks_a_rule_of_session_is_told_of(
    breaks: str, told: str, tmp_path: Path
) -> None:
    entry = '["python", "rogue_session.py", "1"]'
    manifest = MANIFEST.replace('"many:Many"', entry).replace("many.items", f"rogue.{breaks}")
    (tmp_path / "plugin.toml").write_text(manifest)
    shutil.copy(Path(__file__).parent / "children" / "rogue_session.py", tmp_path)
    rogue = Subject(plan_of(tmp_path), "grpc")
    (spec,) = rogue.plan.manifest.capabilities
    async with rogue, by_hand(rogue) as hand, session(hand) as taker:
        assert taker is not None
        with pytest.raises(Fault, match=told):
            await taker.messages(Example(spec, {}))
