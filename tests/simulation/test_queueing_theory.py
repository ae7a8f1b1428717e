"""Reduced to one server, the simulation is a queue with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from planner.serving.queueing import lindley_waits
from planner.simulation import AffineSteps, Deployment, EngineSettings, Pool, simulate
from planner.simulation.streams import Replay

TICK = 1e-6  # seconds per prompt token: fine enough to stand for continuous service times
SERVICE = 1.0


def one_server(gaps, services):
    """Waits (s) of requests whose only work is a prefill of ``services`` seconds, one at a time."""
    steps = AffineSteps(0.0, 0.0, 0.0, TICK, 0.0, kv_tokens=1 << 40, max_sequences=1)
    pool = Pool(steps, EngineSettings(token_budget=1 << 40, block_tokens=1))
    rows = list(zip(np.cumsum(gaps), services, strict=True))
    stream = Replay(lambda: ((float(t), max(1, round(s / TICK)), 1, ()) for t, s in rows))
    run = simulate(Deployment(pool), stream)
    order = np.argsort(np.asarray(run.records.number))
    return np.asarray(run.records.queued)[order]


def exponential(mean, count, seed):
    """Every quantile of the exponential distribution once, shuffled.

    Independent draws would need millions of customers for 2 %: the chance load of the sample dominates the error.
    """
    quantiles = -mean * np.log1p(-(np.arange(count) + 0.5) / count)
    return np.random.default_rng(seed).permutation(quantiles)


def arrivals(load, count, seed):
    return exponential(SERVICE / load, count, seed)


def simpy_waits(gaps, services):
    simpy = pytest.importorskip("simpy")
    env = simpy.Environment()
    server = simpy.Resource(env)
    waits = np.zeros(len(gaps))

    def customer(number):
        arrived = env.now
        with server.request() as turn:
            yield turn
            waits[number] = env.now - arrived
            yield env.timeout(services[number])

    def source():
        for number, gap in enumerate(gaps):
            yield env.timeout(gap)
            env.process(customer(number))

    env.process(source())
    env.run()
    return waits


@pytest.mark.parametrize(("load", "seed"), [(0.5, 1), (0.7, 2)])
def test_mm1_mean_wait_is_rho_over_mu_minus_lambda(load, seed):
    services = exponential(SERVICE, 150_000, seed + 50)
    waits = one_server(arrivals(load, len(services), seed), services)
    assert waits.mean() == pytest.approx(load * SERVICE / (1 - load), rel=0.02)


@pytest.mark.parametrize(("load", "seed"), [(0.5, 1), (0.8, 5)])
def test_md1_mean_wait_is_half_of_that(load, seed):
    services = np.full(150_000, SERVICE)
    waits = one_server(arrivals(load, len(services), seed), services)
    assert waits.mean() == pytest.approx(load * SERVICE / (2 * (1 - load)), rel=0.02)


@pytest.mark.parametrize("deterministic", [True, False])
def test_every_wait_equals_that_of_a_simpy_model(deterministic):
    rng = np.random.default_rng(3)
    services = np.ones(10_000) if deterministic else np.round(rng.exponential(SERVICE, 10_000) / TICK) * TICK + TICK
    gaps = arrivals(0.8, len(services), 9)
    gaps[0] = 0.0  # a replay starts at its first request
    assert one_server(gaps, services) == pytest.approx(simpy_waits(gaps, services), abs=1e-6)


def test_every_wait_equals_that_of_the_lindley_recursion():
    """So the errors that planner.serving.queueing states against the recursion are errors against the simulation."""
    services = np.round(np.random.default_rng(3).lognormal(-0.5, 1.0, 20_000) / TICK) * TICK + TICK
    gaps = arrivals(0.7, len(services), 9)
    gaps[0] = 0.0
    assert one_server(gaps, services) == pytest.approx(lindley_waits(gaps, services), abs=1e-6)
