"""Shows the model the tools before the first question, so that its prompt cache holds them.

A small model on two cores reads the prompt with the tools' examples in about 4 s, and from its
cache in a tenth of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from loom_sdk import AsyncContext
from loom_sdk.errors import LoomError
from loom_sdk.toolloop import offered, tool_specs

POLL_S = 0.1
MAX_POLL_S = 5.0
"""A model that loads is waited for inside the call; one that failed is asked ever more rarely."""
PATIENCE_S = 60.0
"""Models load in seconds; a provider that comes later meets a cold first question."""
QUESTION = "Hello"


async def warm_up(ctx: AsyncContext, config: Mapping[str, Any]) -> bool:
    """Returns whether it was done. Waits for the tools to be complete and the model to be there."""
    until = time.monotonic() + PATIENCE_S
    before: list[dict[str, Any]] = []
    pause_s = POLL_S
    while time.monotonic() < until:
        try:
            tools = await offered(ctx, config["max_tools"])
            if tools and tools == before:
                if config["intent"] != "off":
                    await _learn(ctx, tools)
                await _read(ctx, config, tools)
                return True
            before = tools
        except LoomError as error:
            ctx.log(f"the model is not warm yet: {error.message}", "debug")
            pause_s = min(2 * pause_s, MAX_POLL_S)
        await asyncio.sleep(pause_s)
    return False


async def _learn(ctx: AsyncContext, tools: Sequence[Mapping[str, Any]]) -> None:
    """The matcher learns the tools at their first use; without a matcher nothing is lost."""
    try:
        arguments = {"text": QUESTION, "tools": tools}
        await ctx.invoke("intent.match", arguments, timeout_ms=round(PATIENCE_S * 1000))
    except LoomError as error:
        ctx.log(f"no quick path: {error.message}", "debug")


async def _read(
    ctx: AsyncContext, config: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]
) -> None:
    """One token of an answer to the prompt of every question. Nobody waits for it, so it has
    time."""
    arguments = {
        "messages": [
            {"role": "system", "content": config["system_prompt"]},
            {"role": "user", "content": QUESTION},
        ],
        "tools": tool_specs(tools),
        "max_tokens": 1,
        "temperature": 0.0,
    }
    await ctx.invoke("llm.chat", arguments, timeout_ms=round(PATIENCE_S * 1000))
