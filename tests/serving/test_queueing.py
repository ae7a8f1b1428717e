"""Analytic percentiles against the recursion, and the recursion against the event simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from planner.serving.queueing import (
    lindley_waits,
    mean_wait,
    mean_wait_deterministic,
    response_quantiles,
    simulated_response_quantiles,
    wait_quantile,
)


def simulated(load, service, seed=0):
    gaps = np.random.default_rng(seed).exponential(1 / load, len(service))
    return lindley_waits(gaps, service)


def test_lindley_follows_the_recursion_step_by_step():
    rng = np.random.default_rng(1)
    gaps, service = rng.exponential(1.2, 500), rng.exponential(1.0, 500)
    wait, expected = 0.0, []
    for n in range(500):
        expected.append(wait)
        wait = max(0.0, wait + service[n] - gaps[min(n + 1, 499)])
    assert lindley_waits(gaps, service) == pytest.approx(expected)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0])
def test_pollaczek_khinchine_mean_is_exact(load, cv):
    service = np.ones(10**6) if cv == 0 else np.random.default_rng(4).gamma(1 / cv**2, cv**2, 10**6)
    assert simulated(load, service).mean() == pytest.approx(mean_wait(load, 1.0, cv), rel=0.03)


def test_md1_is_half_of_mm1():
    assert mean_wait_deterministic(0.5, 1.0) == pytest.approx(0.5)
    assert mean_wait(0.5, 1.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("cv", "low", "high"), [(0.0, -0.01, 0.12), (0.5, -0.02, 0.08), (1.0, -0.09, 0.03)])
@pytest.mark.parametrize("load", [0.6, 0.8])
def test_tail_is_as_close_as_its_docstring_says(load, cv, low, high):
    service = np.ones(10**6) if cv == 0 else np.random.default_rng(4).gamma(1 / cv**2, cv**2, 10**6)
    response = simulated(load, service) + service
    for share, predicted in zip((0.95, 0.99), response_quantiles(load, service[:20_000], (0.95, 0.99)), strict=True):
        error = predicted / np.quantile(response, share) - 1
        assert low < error < high


def test_recursion_gives_the_tail_of_heavy_prompts():
    """A lognormal service with a variation of 2 breaks the exponential tail; the recursion does not care."""
    service = np.random.default_rng(4).lognormal(-0.8047, 1.2686, 10**6)
    truth = np.quantile(simulated(0.6, service) + service, 0.95)
    (got,) = simulated_response_quantiles(0.6, service, (0.95,), arrivals=500_000, seed=3)
    assert got == pytest.approx(truth, rel=0.05)


def test_quantiles_are_zero_where_nobody_waits_and_infinite_under_overload():
    assert wait_quantile(0.5, 0.4, 1.0, 0.0) == 0.0
    assert wait_quantile(0.9, 0.4, 1.0, 0.0) == pytest.approx(mean_wait(0.4, 1, 0) / 0.4 * math.log(4))
    assert mean_wait(1.0, 1.0, 0.0) == math.inf
    assert response_quantiles(1.1, np.ones(3)) == (math.inf,) * 3
    assert simulated_response_quantiles(1.1, np.ones(3)) == (math.inf,) * 3
