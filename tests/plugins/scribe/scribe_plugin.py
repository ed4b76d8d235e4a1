"""A test plugin: tools that act or only look, and a language model that answers by a script."""

from __future__ import annotations

import asyncio
from typing import Any

from loom_sdk import AsyncContext, Plugin, capability, tool
from loom_sdk.engines import Message, ToolSpec
from loom_sdk.errors import ActionFailed


class Scribe(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.at_work = self.most_at_work = 0

    @tool("scribe.note", effects="once")
    async def note(self, ctx: AsyncContext, text: str) -> dict[str, int]:
        """Keep a note."""
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await asyncio.sleep(0.005)
        self.at_work -= 1
        self.notes.append(text)
        return {"notes": len(self.notes)}

    @tool("scribe.look", effects="none")
    async def look(self, ctx: AsyncContext, what: str, seconds: float = 0.0) -> Any:
        """Read what is asked for."""
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await asyncio.sleep(seconds)
            if what == "nested":
                return (await ctx.invoke("scribe.note", {"text": "nested"})).output
            if what == "nothing":
                raise ActionFailed("there is nothing", code="NOTHING")
            return what
        finally:
            self.at_work -= 1

    @capability("scribe.log", effects="none")
    async def log(self, ctx: AsyncContext) -> dict[str, Any]:
        return {"notes": self.notes, "asked": self.asked, "most_at_work": self.most_at_work}

    @capability("llm.chat", effects="none")
    async def chat(
        self,
        ctx: AsyncContext,
        messages: list[Message],
        tools: list[ToolSpec] | None = None,
        tool_choice: str | None = None,
    ) -> dict[str, Any]:
        tools = tools or []
        self.asked.append({
            "messages": messages, "tools": [tool["name"] for tool in tools], "choice": tool_choice,
        })  # fmt: skip
        said: dict[str, Any] = self.config["script"][len(self.asked) - 1]
        for word in said.get("text", "").split():
            await ctx.emit({"delta": f"{word} "})
        usage = {"input_tokens": 10, "output_tokens": 1, "cost": 0.5}
        return {"text": "", "tool_calls": [], "finish_reason": "stop", "usage": usage} | said
