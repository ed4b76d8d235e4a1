"""`loom route explain`: on a running host and by the settings alone."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from loom_host.cli import main as cli
from loom_host.cli.route import run_explain
from loom_host.cli.show import ps
from loom_host.control import ControlServer

from .test_routing_host import give, host_of, write_config


def explain(config: Path, *words: str) -> int:
    return cli.main(["-c", str(config), "route", "explain", *words])


def asked(config: Path, **fields: Any) -> argparse.Namespace:
    given = {"capability": "answer.give", "agent": "", "policy": [], "json": False} | fields
    return argparse.Namespace(config=config, **given)


def test_without_a_host_the_settings_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    assert explain(config, "answer.give") == 0
    out, err = capsys.readouterr()
    assert "answer.give  Hybrid: local quick + cloud refine\n" in out
    assert "confidence 0.700, about 300 ms, cost 0.0020" in out
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["quick", "refine"]
    assert err == "loom: no host runs: this is by the settings alone\n"


WORDS: list[tuple[tuple[str, ...], str, list[str]]] = [
    (("--agent", "hermit"), "Local", ["chosen", "privacy local-only forbids cloud"]),
    (("--policy", "privacy=private"), "Local", ["chosen", "privacy private forbids cloud"]),
    (
        ("--policy", "routing.cost_cap=0.001", "--policy", "quality_threshold=0.9"),
        "LocalFallback",
        ["chosen", "cost 0.002 is above cost_cap 0.001"],
    ),
    (("--policy", "latency_budget_ms=50"), "Local", ["chosen", "stands by, number 2"]),
    (("--agent", "hermit", "--policy", "privacy=public"), "Hybrid", ["quick", "refine"]),
]


@pytest.mark.parametrize(("words", "route", "verdicts"), WORDS)
def test_policy_and_agent_change_the_decision(
    words: tuple[str, ...],
    route: str,
    verdicts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert explain(write_config(tmp_path), "answer.give", "--json", *words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["decision"]["route"] == route
    assert [row["verdict"] for row in answer["candidates"]] == verdicts


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("answer.giv",), "did you mean 'answer.give'?", 1),
        (("answer.give", "--agent", "voyce"), "no [agents.voyce]", 1),
        (("answer.give", "--policy", "privacy=secret"), "policy privacy: must be one of", 1),
        (("answer.give", "--policy", "cost=1"), "unknown key 'cost'", 1),
        (("answer.give", "--policy", "cost_cap=dear"), "must be a number", 1),
        (("answer.give", "--policy", "private"), "write arguments as key=value", 2),
    ],
)
def test_what_is_wrong_is_told(
    words: tuple[str, ...],
    told: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert explain(write_config(tmp_path), *words) == code
    assert told in capsys.readouterr().err


async def test_a_running_host_tells_of_its_circuits_and_of_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with host_of(tmp_path, quality=0.9) as host:
        server = ControlServer(host)
        await server.start()
        try:
            config = tmp_path / "loom.toml"
            await give(host)
            async for _ in host.stream("answer.stream", {"plan": "near=hang"}):
                pass
            capsys.readouterr()
            assert await run_explain(asked(config)) == 0
            out, err = capsys.readouterr()
            assert "answer.give  Cloud: Default to cloud for quality" in out
            near = next(line for line in out.splitlines() if line.startswith("near"))
            assert "last resort: circuit open, next probe in 0." in near
            assert " ms  " in near
            assert err == ""
            assert await ps(asked(config)) == 0
            assert "near: circuit open, next probe in" in capsys.readouterr().out
            await asyncio.sleep(0.3)
            assert await run_explain(asked(config, json=True)) == 0
            rows = json.loads(capsys.readouterr().out)["candidates"]
            assert rows[0]["circuit_reason"].startswith("circuit open, the next call is its probe")
            assert rows[0]["verdict"] == "chosen"
        finally:
            await server.aclose()
