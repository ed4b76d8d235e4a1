"""`python.eval`: a model's Python, each piece in a process of its own inside this plugin's sandbox.

The sandbox is the host's: profile `strict` of the grpc tier. This plugin adds what makes it a good
tool: a fresh namespace, limits of time, memory and output, the last value, errors with lines.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from python_eval_process import Outcome, Runner
from python_eval_sandbox import openings

from loom_sdk import AsyncContext, Plugin, tool
from loom_sdk.errors import ActionFailed, PluginLoadError

MB = 1_000_000
SPOKEN = 200
"""Longest value that is read out."""


class PythonEval(Plugin):
    async def start(self, ctx: AsyncContext) -> None:
        problems = openings(os.environ)
        if problems and not self.config["allow_unsandboxed"]:
            raise PluginLoadError(
                f"{ctx.plugin_id} runs any code, and this is no strict sandbox: "
                f'{"; ".join(problems)}. Set sandbox = "strict" under [plugins.python-eval] and '
                "see what `loom check` says is missing; or, where only you can reach it, set "
                "config = { allow_unsandboxed = true }",
                plugin_id=ctx.plugin_id,
            )
        if problems:
            ctx.log(f"runs code without a sandbox: {'; '.join(problems)}", level="warning")
        self._warm = ("numpy",) if self.config["numpy"] else ()
        self._next: asyncio.Task[Runner] = asyncio.create_task(Runner.start(self._warm))
        await self._next

    async def stop(self, ctx: AsyncContext) -> None:
        await (await self._next).aclose()

    @tool("python.eval", effects="none")
    async def evaluate(self, ctx: AsyncContext, code: str) -> dict[str, Any]:
        """Run Python code."""
        runner = await self._take()
        limits = self.config
        outcome = await runner.run(
            code,
            seconds=min(limits["seconds"], max(0.05, ctx.remaining_ms() / 1000 - 0.1)),
            chars=limits["output_chars"],
            memory=limits["memory_mb"] * MB,
        )
        self._refuse(outcome)
        return _answer(outcome)

    async def _take(self) -> Runner:
        """The runner that waits; the next one starts while this one works."""
        taken, self._next = self._next, asyncio.create_task(Runner.start(self._warm))
        runner = await taken
        return runner if runner.alive else await Runner.start(self._warm)

    def _refuse(self, outcome: Outcome) -> None:
        """Raises ActionFailed when the code did not come to its end."""
        printed = {"stdout": outcome.output}
        if outcome.late:
            text = f"the code did not end within {self.config['seconds']:g} s: let it do less"
            raise ActionFailed(text, code="TIME_LIMIT", data=printed)
        error = outcome.report.get("error")
        if isinstance(error, dict):
            where = f" (line {error.get('line')})" if error.get("line") else ""
            text = f"{error.get('type')}: {error.get('message')}{where}"
            raise ActionFailed(text, code="PYTHON_ERROR", data=error | printed)
        if outcome.exit_code:
            text = f"Python itself ended, with code {outcome.exit_code}"
            raise ActionFailed(text, code="PYTHON_CRASHED", data=printed)


def _answer(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    answer = {key: report[key] for key in ("value", "repr") if key in report}
    if outcome.output:
        answer["stdout"] = outcome.output
    if outcome.cut or report.get("cut"):
        answer["cut"] = True
    said = answer.get("repr") or outcome.output.strip()
    if said and len(said) <= SPOKEN:
        answer["speech"] = f"The result is {said}."
    return answer
