"""Streams have the rates, lengths and reuse that they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from planner.simulation import AffineSteps, Deployment, EngineSettings, Pool, simulate
from planner.simulation.streams import (
    ClosedLoop,
    Deterministic,
    Empirical,
    Fixed,
    Gamma,
    Lognormal,
    OnOff,
    OpenStream,
    Poisson,
    Replay,
    Sessions,
    Uniform,
)


@pytest.mark.parametrize(
    ("process", "cv"), [(Poisson(8.0), 1.0), (Gamma(8.0, 0.25), 2.0), (Gamma(8.0, 4.0), 0.5), (Deterministic(8.0), 0.0)]
)
def test_gaps_have_the_rate_and_the_burstiness(process, cv):
    gaps = np.asarray(process.gaps(np.random.default_rng(1), 50_000))
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.05)


def test_bursts_keep_the_mean_rate_and_the_pauses():
    stream = OpenStream(OnOff(10.0, on=2.0, off=3.0), Fixed(1), Fixed(1), 20_000, seed=2)
    times = np.asarray([r.arrival for r in stream.arrivals()])
    assert len(times) / times[-1] == pytest.approx(10, rel=0.05)
    assert (times[:4000] % 5.0 <= 2.0).all()


@pytest.mark.parametrize(
    ("lengths", "mean"),
    [(Fixed(7), 7), (Uniform(10, 20), 15), (Lognormal(300, 1.5), 300), (Empirical([1, 2, 6]), 3)],
)
def test_lengths_have_the_mean(lengths, mean):
    drawn = lengths.draw(np.random.default_rng(1), 100_000)
    assert np.mean(drawn) == pytest.approx(mean, rel=0.03)
    assert min(drawn) >= 1 and all(isinstance(v, int) for v in drawn[:10])


def test_a_seed_fixes_the_stream():
    def first(seed):
        return [(r.arrival, r.prompt) for r in OpenStream(Poisson(1), Lognormal(50, 1), Fixed(1), 20, seed).arrivals()]

    assert first(1) == first(1) != first(2)


def test_closed_loops_keep_their_users():
    """With 8 users and no think time, 8 requests are in the system at any time, so e2e = 8 / throughput."""
    run = simulate(Deployment(Pool(AffineSteps())), ClosedLoop(8, Fixed(100), Fixed(50), 4000))
    assert np.mean(run.records.end_to_end) == pytest.approx(8 * run.end / 4000, rel=0.01)
    slow = simulate(Deployment(Pool(AffineSteps())), ClosedLoop(8, Fixed(100), Fixed(50), 400, think=10.0))
    assert slow.end > 300


def test_conversations_reuse_their_history():
    stream = Sessions(Poisson(2), Fixed(64), Fixed(32), Fixed(4), count=50, pause=1.0, system_tokens=128)
    engine = EngineSettings(prefix_cache=True, hash_tokens=16)
    run = simulate(Deployment(Pool(AffineSteps(), engine)), stream)
    assert run.finished == 200
    prompts = sorted(set(run.records.prompt))
    assert prompts == [128 + 64 + turn * 96 for turn in range(4)]
    # All but the first conversation find the system prompt; later turns all but the last block and the new part.
    hits = dict(zip(run.records.number, zip(run.records.prompt, run.records.hit_tokens, strict=True), strict=True))
    assert all(hit >= prompt - 64 - 16 for prompt, hit in hits.values() if prompt > 192)
    assert sorted(hit for prompt, hit in hits.values() if prompt == 192)[1] == 128


def test_long_conversations_end():
    stream = Sessions(Poisson(2), Fixed(64), Fixed(32), Fixed(10), count=5, longest=300)
    run = simulate(Deployment(Pool(AffineSteps())), stream)
    assert max(run.records.prompt) <= 300 and run.finished == 5 * 3


def test_replay_scales_time_and_load():
    rows = [(100.0 + i, 10, 5, (1, 2)) for i in range(10)]
    assert [r.arrival for r in Replay(lambda: rows, speed=2.0).arrivals()] == [i / 2 for i in range(10)]
    doubled = list(Replay(lambda: rows, copies=2).arrivals())
    assert len(doubled) == 20
    assert not set(doubled[0].hash_ids) & set(doubled[1].hash_ids)
