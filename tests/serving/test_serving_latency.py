"""Queueing and percentiles against textbook values, exact distributions and a simulated queue."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import one, plain_engine, replica, tiny

from planner.serving.aggregated import open_loop
from planner.serving.latency import (
    STATISTICS,
    closed_loop_ttft,
    e2e,
    open_loop_tpot,
    open_loop_ttft,
    slots_needed,
    wait,
    z_score,
)
from planner.serving.lengths import Lengths


def waits(load: float, statistic: str, service: float = 1.0) -> float:
    return float(wait(np.array([load]), np.array([service]), statistic)[0])


@pytest.mark.parametrize(("load", "mean"), [(0.5, 0.5), (0.8, 2.0), (0.9, 4.5)])
def test_mean_wait_is_that_of_a_queue_with_constant_service(load: float, mean: float) -> None:
    assert waits(load, "mean") == pytest.approx(mean)  # load/(2 (1 - load)) services, Pollaczek-Khinchine
    assert waits(load, "mean", 0.2) == pytest.approx(mean * 0.2)


@pytest.mark.parametrize("load", [0.6, 0.75, 0.9])
def test_wait_percentiles_agree_with_a_simulated_queue(load: float) -> None:
    random = np.random.default_rng(7)
    steps = 1.0 - random.exponential(1 / load, 1_000_000)  # service minus the gap to the next arrival
    walk = np.concatenate([[0.0], np.cumsum(steps)])
    seen = walk - np.minimum.accumulate(walk)  # Lindley's recursion
    assert waits(load, "mean") == pytest.approx(seen.mean(), rel=0.05)
    for statistic, q in (("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        simulated = float(np.quantile(seen, q))
        assert 0.97 * simulated < waits(load, statistic) < 1.15 * simulated  # safe side, as the module says


def test_nobody_waits_at_a_percentile_that_finds_the_server_idle() -> None:
    assert waits(0.04, "p95") == 0.0  # 96 % of arrivals find it idle
    assert waits(0.0, "mean") == 0.0


def test_an_overloaded_server_never_answers() -> None:
    assert waits(1.0, "mean") == waits(1.3, "p95") == math.inf


@pytest.mark.parametrize("batch", [1, 4, 30, 100, 400])
@pytest.mark.parametrize(("statistic", "q"), [("p95", 0.95), ("p99", 0.99)])
def test_slots_follow_the_poisson_occupancy(batch: int, statistic: str, q: float) -> None:
    term, total, n = math.exp(-batch), math.exp(-batch), 0
    while total < q:
        n += 1
        term *= batch / n
        total += term
    assert abs(float(slots_needed(np.array([float(batch)]), statistic)[0]) - n) <= 1


def test_slots_by_hand() -> None:
    assert float(slots_needed(np.array([100.0]), "p95")[0]) == 117  # 100 + 1.645 * 10, rounded up
    assert float(slots_needed(np.array([100.0]), "mean")[0]) == 100


def test_quantiles_are_those_of_the_normal_distribution() -> None:
    assert z_score("p95") == pytest.approx(1.6449, abs=1e-4)
    assert z_score("p99") == pytest.approx(2.3263, abs=1e-4)
    assert z_score("mean") == z_score("p50") == 0.0


def test_end_to_end_is_first_token_and_the_rest() -> None:
    assert float(e2e(0.4, 0.02, 101)) == pytest.approx(0.4 + 100 * 0.02)
    assert float(e2e(0.4, 0.02, 1)) == 0.4  # a single token has no time between tokens


@given(
    batch=st.floats(0.05, 500),
    isl=st.integers(1, 50_000),
    osl=st.integers(2, 5000),
    name=st.sampled_from(["llama-3.1-8b", "qwen/qwen3-30b-a3b"]),
)
def test_percentiles_are_ordered(batch: float, isl: int, osl: int, name: str) -> None:
    kind = replica(name)
    point = open_loop(kind, one(2), np.array([batch]), Lengths(isl, osl))
    for of in (lambda s: open_loop_ttft(point, kind.engine, s), lambda s: open_loop_tpot(point, osl, s)):
        p50, p90, p95, p99 = (float(of(s)[0]) for s in STATISTICS[1:])
        assert 0 < p50 <= p90 <= p95 <= p99


def test_first_token_waits_for_front_end_queue_and_own_prefill() -> None:
    engine = plain_engine(offset=0.05, decode_steps=2.0)
    kind = replica("llama-3.1-8b", engine=engine)
    point = open_loop(kind, one(1), np.array([20.0]), Lengths(2000, 100))
    own, load = float(point.steps.own_prefill[0]), float(point.prefill_load[0])
    queue = load * float(point.steps.prefill[0]) / (2 * (1 - load))
    expected = 0.05 + 2 * float(point.tpot[0]) + queue + float(point.steps.decode[0]) / 2 + own
    assert float(open_loop_ttft(point, engine, "mean")[0]) == pytest.approx(expected)


def test_a_burst_at_the_start_of_a_load_test_stays_in_the_mean_only() -> None:
    engine = plain_engine(burst_rounds=4.0)
    s = open_loop(replica(tiny(), engine=engine), one(1), np.array([9.0]), Lengths(100, 50)).steps
    tpot = s.decode
    mean, median = (float(closed_loop_ttft(s, tpot, 50, engine, k)[0]) for k in ("mean", "p50"))
    assert mean - median == pytest.approx(float(s.prefill[0]) * (9 - 1) / (2 * 4))  # half of 8 others over 4 rounds
