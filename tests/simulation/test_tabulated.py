"""A tabulated cost model is as fast as a formula and equal to it where that is affine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.simulation import AffineSteps, Deployment, Pool, TabulatedSteps, simulate, summarize
from planner.simulation.streams import Lognormal, OpenStream, Poisson

AFFINE = AffineSteps()


def vectorised(b, context, chunk, pairs):
    decode = AFFINE.base + AFFINE.per_sequence * b + AFFINE.per_token * context
    return decode + AFFINE.per_chunk_token * chunk + AFFINE.per_pair * pairs


TABLE = TabulatedSteps(vectorised, kv_tokens=AFFINE.kv_tokens, max_sequences=256, chunk_tokens=8192, longest=32_768)


@given(st.integers(0, 256), st.integers(1, 5000), st.integers(1, 8192), st.integers(0, 50_000))
def test_affine_costs_are_reproduced(sequences, context, chunk, prefix):
    arguments = (sequences, sequences * context, chunk, chunk * prefix + chunk * (chunk + 1) / 2)
    assert TABLE.mixed(*arguments) == pytest.approx(AFFINE.mixed(*arguments), rel=3e-3)
    if sequences:
        total = sequences * context
        assert TABLE.decode_steps(sequences)(total) == pytest.approx(AFFINE.decode_steps(sequences)(total), rel=1e-9)


def test_a_roofline_is_followed_closely():
    """GEMM = max(memory, compute) has a corner inside a cell; the error stays within some percent."""

    def roofline(b, context, chunk, pairs):
        return np.maximum(5e-3, (b + chunk) * 2.4e-5) + 4.9e-8 * context + 2e-10 * pairs + 1e-3

    table = TabulatedSteps(roofline, kv_tokens=10**6, max_sequences=256, chunk_tokens=8192, longest=32_768)
    rng = np.random.default_rng(1)
    for _ in range(2000):
        b, c = int(rng.integers(1, 257)), int(2 ** rng.uniform(0, 13))
        context, pairs = float(b * rng.integers(1, 8000)), c * float(rng.integers(0, 8000)) + c * (c + 1) / 2
        assert table.mixed(b, context, c, pairs) == pytest.approx(float(roofline(b, context, c, pairs)), rel=0.1)


def test_a_simulation_with_it_gives_the_same_latencies():
    stream = OpenStream(Poisson(20), Lognormal(500, 0.8), Lognormal(100, 0.6), 1000)
    a, b = (summarize(simulate(Deployment(Pool(steps)), stream)) for steps in (AFFINE, TABLE))
    # Iterations differ by parts in ten thousand, but that decides which one an arrival just misses.
    assert a.ttft.mean == pytest.approx(b.ttft.mean, rel=0.05)
    assert a.tpot.mean == pytest.approx(b.tpot.mean, rel=0.01)
