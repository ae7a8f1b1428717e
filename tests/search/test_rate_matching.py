"""Sizing of two pools against brute force: bounds hold, the best match of all is found, plans carry the proof."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.search.candidates import fitting, lengths_of
from planner.search.pools import decode_pool, prefill_pool
from planner.search.ranking import Outcome
from planner.search.rate_matching import Matches, best_matches, bounded, counts_of, offer_of, operating_points
from planner.search.search import search
from planner.search.split_metrics import roles_of, state_metrics
from planner.serving.engine import load_engine
from planner.serving.layout import Layout
from planner.serving.pd import open_split, paired
from planner.serving.replica import Replica

MODEL = load_model("meta-llama/Llama-3.1-8B")
ENGINE = load_engine("vllm")
LAYOUTS = [Layout(1), Layout(2), Layout(4), Layout(1, pp=2)]
CASES = [
    {"ttft": 1.0, "tpot": 0.02},
    {"ttft": 0.3, "tpot": 0.01, "percentile": "mean"},
    {"e2e": 4.0, "objective": "cost"},
    {"ttft": 1.0, "tpot": 0.02, "rate": 15.0},
    {"ttft": 1.0, "tpot": 0.02, "rate": 15.0, "objective": "latency"},
    {"ttft": 1.0, "tpot": 0.02, "objective": "gpus"},
    {"ttft": 1.0, "tpot": 0.02, "objective": "energy"},
    {"ttft": 1.0, "objective": "latency"},
]


def matches_of(asked: Job, gpus: int = 8) -> Matches:
    offer = supply("h100-sxm", gpus)
    replica = Replica(MODEL, offer.accelerator, offer.efficiency, ENGINE, "fp8", "fp8")
    family = fitting(replica, LAYOUTS, asked.workload, Outcome().rejections)
    assert family is not None
    decode = decode_pool(offer, gpus, family, asked.slo, lengths_of(asked.workload))
    assert decode is not None
    return bounded(offer_of(prefill_pool(offer, gpus, family), asked), decode, asked)


@pytest.mark.parametrize("limits", CASES)
def test_no_match_is_better_than_its_bound(limits: dict[str, Any]) -> None:
    matches = matches_of(job(2000, 200, **limits))
    _, score = operating_points(matches, job(2000, 200, **limits))
    assert np.isfinite(score).any()
    assert (score >= matches.bound - 1e-9 * np.abs(matches.bound)).all()


@pytest.mark.parametrize("limits", CASES)
def test_the_best_match_of_all_is_found_with_its_proof(limits: dict[str, Any]) -> None:
    asked = job(2000, 200, **limits)
    matches = matches_of(asked)
    _, every = operating_points(matches, asked)
    found = best_matches([matches], asked, wanted=3)
    assert found.proved
    assert found.best[0][0] == pytest.approx(float(every.min()), rel=1e-9)
    # The best of each of the three best layout pairs, in order.
    pairs: dict[tuple[int, int], float] = {}
    for i, j, score in zip(matches.i, matches.j, every, strict=True):
        pairs[int(i), int(j)] = min(float(score), pairs.get((int(i), int(j)), np.inf))
    assert [score for score, _, _ in found.best] == pytest.approx(
        sorted(score for score in pairs.values() if np.isfinite(score))[:3], rel=1e-9
    )


def test_all_counts_of_all_layouts_are_there() -> None:
    asked = job(2000, 200, ttft=1.0, tpot=0.02)
    matches = matches_of(asked, gpus=5)
    sizes = [layout.gpus for layout in LAYOUTS]
    expected = sum(
        first * sizes[i] + second * sizes[j] <= 5
        for i, j, first, second in itertools.product(range(4), range(4), range(1, 6), range(1, 6))
    )
    assert len(matches.bound) == expected
    assert counts_of(np.array([2.0, 1.0]))[1].tolist() == [1.0, 2.0, 1.0]


def test_a_split_plan_is_the_best_of_brute_force_over_counts_layouts_and_rates() -> None:
    limits = {"ttft": 1.0, "tpot": 0.02, "weights": ("fp8",), "kv": ("fp8",), "max_gpus_per_replica": 2}
    outcome = search(MODEL, ENGINE, [supply("h100-sxm", 6)], job(2000, 200, modes=("pd",), **limits))  # type: ignore[arg-type]
    best = outcome.ranked[0]
    assert outcome.exhaustive
    carried = 0.0
    replica = best.replica
    for first, second in itertools.product((Layout(1), Layout(2)), repeat=2):
        rows = [
            (first, second, n, m)
            for n, m in itertools.product(range(1, 6), repeat=2)
            if n * first.gpus + m * second.gpus <= 6
        ]
        for rate in np.linspace(80.0, 140.0, 121):
            flow = open_split(*roles_of(replica, replica, rows), np.full(len(rows), rate), best.lengths)
            within = [m.ttft["p95"] <= 1.0 and m.tpot["p95"] <= 0.02 for m in state_metrics(flow)]
            carried = max(carried, float(rate)) if any(within) else carried
    assert best.rate == pytest.approx(carried, rel=0.012)
    assert best.rate >= carried * (1 - 1e-3)


def test_where_more_requests_emit_less_a_pool_stays_below() -> None:
    # fp8 weights widened on an A100: beyond 54 requests the products take another tile, and TPOT grows faster than the
    # batch. 30 ms allow 62 requests, which emit less.
    limits = {"ttft": 1.0, "tpot": 0.03, "weights": ("fp8",), "kv": ("bf16",), "max_gpus_per_replica": 1}
    sides = [supply("h100-sxm", 3), supply("a100-sxm-80gb", 3)]
    best = search(MODEL, ENGINE, sides, job(3000, 150, modes=("pd",), **limits)).ranked[0]  # type: ignore[arg-type]
    first, second = best.pools
    assert (first.replica.accelerator.id, second.replica.accelerator.id) == ("h100-sxm", "a100-sxm-80gb")
    roles = roles_of(first.replica, second.replica, [(Layout(1), Layout(1), 3, 3)])
    pair = paired(*roles, best.lengths)
    batches = np.geomspace(1.0, 62.0, 400)
    rates = [3 * b / (149 * float(pair.table.at(np.array([b]))[0])) for b in batches]
    assert max(rates) > 1.01 * rates[-1]
    assert best.rate == pytest.approx(max(rates), rel=5e-3)
    assert float(pair.open(np.array([0.999 * max(rates)])).batch[0]) < 56
