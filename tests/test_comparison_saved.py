"""``planner compare --save-plan``: what other commands make of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

from planner.plan import read_plan_file

Command = Callable[..., Any]
JOB = ("compare", "llama-3.1-8b", "--isl", "1000", "--osl", "200", "--weights", "bf16", "--rate", "14/s")


@pytest.fixture
def saved(command: Command, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    ran = command(*JOB, "--fleet", "l40s:8", "--fleet", "h100-sxm:1", "--tpot", "50ms", "--save-plan", path)
    assert ran.code == 0, ran.err
    return path


def test_the_winner_comes_first_and_every_plan_names_its_fleet(command: Command, saved: Path) -> None:
    found = read_plan_file(saved)
    assert [plan.rank for plan in found.plans] == list(range(1, 6))
    assert {plan.notes[0] for plan in found.plans} == {
        "fleet: l40s:8", "fleet: h100-sxm:1", "fleet: union", "fleet: unlimited l40s", "fleet: unlimited h100-sxm",
    }  # fmt: skip
    costs = [plan.cost_usd_per_hour or 0.0 for plan in found.plans]
    assert costs[0] == min(costs)
    assert "--save-plan" not in found.provenance.argv


def test_the_saved_plan_can_be_simulated_explained_and_exported(command: Command, saved: Path, tmp_path: Path) -> None:
    replayed = strict_json(command("simulate", saved, "--requests", "200", "-o", "json").out)
    assert replayed["stable"] and replayed["requests"] == 200
    explained = command("explain", saved)
    assert explained.code == 0 and "each other plan is that of another fleet" in explained.out
    assert command("export", saved, "--to", "vllm", "--out", tmp_path / "files", "--check").code == 0


def test_pipelines_over_unlike_gpus_are_refused_where_nothing_can_run_them(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = ("--isl", "500", "--osl", "200", "--weights", "bf16", "--ttft", "8s", "--tpot", "300ms")
    fleets = ("--fleet", "l4:1", "--fleet", "rtx-3090:1", "--cross-type-pipelines", "--save-plan", path)
    assert command("compare", "qwen2.5-14b", *words, *fleets).code == 0
    refused(command("simulate", path), "pipeline over l4+rtx-3090", code=2)
    refused(command("export", path, "--to", "vllm", "--out", tmp_path / "files"), "stages on l4 and rtx-3090", code=3)
    assert not (tmp_path / "files").exists()


def test_several_models_are_refused_before_anything_is_solved(command: Command, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(
        "jobs: [{model: llama-3.1-8b, isl: 1k, osl: 10, rate: 1/s}, {model: qwen2.5-7b, isl: 1k, osl: 10, rate: 1/s}]"
    )
    ran = command("compare", "--jobs", jobs, "--fleet", "l4:2", "--save-plan", tmp_path / "plan.json")
    refused(ran, "--save-plan: a plan file holds the plan of one model")
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_that_cannot_be_saved_is_refused_before_the_comparison(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the answer was worked out, and lost with the folder that was not there."""
    monkeypatch.setattr("planner.api.compare", lambda *a, **k: pytest.fail("the comparison has begun"))
    target = tmp_path / "absent" / "plan.json"
    refused(command(*JOB, "--fleet", "l4:2", "--save-plan", target), f"--save-plan {target}: no such folder")
