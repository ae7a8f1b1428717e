"""Sizing of two pools in a closed loop: bounds hold, and the best of all layouts and counts is found."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.search.candidates import Family, fitting, lengths_of
from planner.search.loop_matching import loop_bounded
from planner.search.pools import decode_pool, prefill_pool
from planner.search.ranking import Outcome
from planner.search.rate_matching import operating_points
from planner.search.search import search
from planner.search.split_metrics import roles_of
from planner.serving.engine import load_engine
from planner.serving.layout import Layout
from planner.serving.pd import closed_split
from planner.serving.replica import Replica

MODEL, ENGINE = load_model("meta-llama/Llama-3.1-8B"), load_engine("vllm")
LAYOUTS = [Layout(1), Layout(2), Layout(4)]
OFFER = supply("h100-sxm", 8)
CASES: list[dict[str, Any]] = [
    {},
    {"ttft": 1.5, "tpot": 0.009},
    {"e2e": 2.5, "objective": "cost"},
    {"tpot": 0.008, "objective": "gpus"},
    {"tpot": 0.008, "objective": "energy"},
    {"objective": "latency", "percentile": "mean"},
]


def family(asked: Job) -> Family:
    replica = Replica(MODEL, OFFER.accelerator, OFFER.efficiency, ENGINE, "fp8", "fp8")
    found = fitting(replica, LAYOUTS, asked.workload, Outcome().rejections)
    assert found is not None
    return found


@pytest.mark.parametrize("limits", CASES)
@pytest.mark.parametrize("concurrency", [3.0, 200.0])
def test_no_match_in_a_closed_loop_is_better_than_its_bound(limits: dict[str, Any], concurrency: float) -> None:
    asked = job(3000, 200, concurrency=concurrency, **limits)
    member = (OFFER, 8, family(asked))
    steady = asked.slo.model_copy(update={"percentile": "mean"})
    decode = decode_pool(*member, steady, lengths_of(asked.workload), pruned=False)
    assert decode is not None
    matches = loop_bounded(prefill_pool(*member, pruned=False), decode, asked)
    _, score = operating_points(matches, asked)
    assert np.isfinite(score).any()
    assert (score >= matches.bound - 1e-9 * np.abs(matches.bound)).all()


@pytest.mark.parametrize("limits", [{}, {"ttft": 1.5, "tpot": 0.009}])
def test_the_best_split_of_a_closed_loop_is_that_of_brute_force(limits: dict[str, Any]) -> None:
    precision = {"weights": ("fp8",), "kv": ("fp8",), "max_gpus_per_replica": 4}
    asked = job(3000, 200, concurrency=200.0, modes=("pd",), **precision, **limits)
    outcome = search(MODEL, ENGINE, [OFFER], asked)
    replica = family(asked).replica
    rows = [
        (first, second, n, m)
        for first, second, n, m in itertools.product(LAYOUTS, LAYOUTS, range(1, 8), range(1, 8))
        if n * first.gpus + m * second.gpus <= 8
    ]
    loop = closed_split(*roles_of(replica, replica, rows), np.full(len(rows), 200.0), lengths_of(asked.workload))
    kept = loop.ttft("p95") <= limits.get("ttft", np.inf)
    kept &= loop.tpot("p95") <= limits.get("tpot", np.inf)
    assert outcome.exhaustive
    assert outcome.ranked[0].rate == pytest.approx(float(loop.rate[kept].max()), rel=1e-3)
    names = [c.name for c in outcome.ranked]
    assert len(names) == len(set(names))


def test_a_loop_that_misses_a_limit_says_by_how_much() -> None:
    asked = job(3000, 200, concurrency=2000.0, modes=("pd",), ttft=0.5)
    outcome = search(MODEL, ENGINE, [OFFER], asked)
    assert not outcome.ranked
    nearest = next(near for reason, _, near in outcome.rejections.rows() if "split misses a limit" in reason)
    assert "ms, has a limit of 500 ms" in nearest
