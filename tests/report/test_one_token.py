"""Outputs of one token have no TPOT: nothing of a comparison of modes is laid to it."""

from __future__ import annotations

from typing import Any

import pytest
from planner_cases import job

from planner.api import search
from planner.job.fleet import Fleet
from planner.report.modes import compare_modes


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_modes_are_compared_without_a_tpot(objective: str) -> None:
    changes: dict[str, Any] = {"weights": ("bf16",), "kv": ("bf16",), "ttft": 2.0, "tpot": 0.005, "concurrency": 8.0}
    asked = job(4000, 1, modes=("aggregated", "pd"), **changes)
    small = {"model": "meta-llama/Llama-3.1-8B", "fleet": Fleet(gpus={"h100-sxm": 4})}
    asked = asked.model_copy(update={"objective": objective, "simulate_top": 0, **small})
    (line,) = compare_modes(search(asked))
    assert line.startswith("the best pd plan") and "TPOT" not in line
