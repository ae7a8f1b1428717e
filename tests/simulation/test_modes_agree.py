"""The closed form and the iteration-by-iteration reference see the same system."""

from __future__ import annotations

import dataclasses
import math
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.simulation import (
    AffineSteps,
    Deployment,
    EngineSettings,
    Policy,
    Pool,
    Request,
    Routing,
    Run,
    Target,
    Transfer,
    simulate,
    summarize,
)


class Listed:
    """A stream of given (gap, prompt, output, prefix) rows."""

    def __init__(self, rows, hash_tokens=32):
        self.rows, self.hash_tokens = rows, hash_tokens

    def arrivals(self):
        times = accumulate(row[0] for row in self.rows)
        for number, (time, (_, prompt, output, prefix)) in enumerate(zip(times, self.rows, strict=True)):
            # Requests of the same prefix share all blocks of the shorter prompt.
            ids = [prefix * 1000 + i for i in range(-(-prompt // self.hash_tokens))]
            yield Request(number, time, prompt, output, ids)

    def after(self, request, finished):
        return None


rows = st.lists(
    st.tuples(st.floats(0, 0.3), st.integers(1, 600), st.integers(1, 150), st.integers(0, 3)), min_size=1, max_size=40
)


@st.composite
def pools(draw, policy: Policy) -> Pool:
    steps = AffineSteps(
        per_token=draw(st.sampled_from([0.0, 3.1e-8, 4.7e-6])),
        hidden_tokens=draw(st.sampled_from([0.0, 333.0])),
        kv_tokens=draw(st.integers(800, 4000)),
        max_sequences=draw(st.integers(1, 32)),
    )
    engine = EngineSettings(
        policy=policy,
        token_budget=draw(st.sampled_from([64, 256, 8192])),
        block_tokens=draw(st.sampled_from([1, 16])),
        chunked=draw(st.booleans()),
        prefix_cache=draw(st.booleans()),
        hash_tokens=32,
        watermark=draw(st.sampled_from([0.0, 0.05])),
        receive_interval=draw(st.sampled_from([1, 1, 7])),
    )
    return Pool(
        steps,
        engine,
        replicas=draw(st.integers(1, 3)),
        attention_dp=draw(st.sampled_from([1, 2, 3])),
        stages=draw(st.sampled_from([1, 2])),
        routing=draw(st.sampled_from(list(Routing))),
        offset=0.01,
    )


def numbers(value, name=""):
    """All numbers of a nested result with their names."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, (int, float)):
        yield name, value


def assert_same(fast: Run, exact: Run) -> None:
    target = Target(ttft=0.4, tpot=0.02)
    for (name, a), (_, b) in zip(numbers(summarize(fast, target)), numbers(summarize(exact, target)), strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9, nan_ok=True), name
    for column in fast.records.__slots__:
        assert list(getattr(fast.records, column)) == pytest.approx(
            list(getattr(exact.records, column)), rel=1e-6, abs=1e-9
        )
    for (time, a), (same, b) in zip(fast.timeline.rows(), exact.timeline.rows(), strict=True):
        assert time == same
        assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), rel=1e-6, abs=1e-9)


def assert_conserved(run: Run, count: int) -> None:
    records = run.records
    assert len(set(records.number)) == len(records) == count - run.refused
    assert run.leaked_blocks == 0
    # Every token but the first of each request ends one gap between tokens.
    assert run.token_gaps.count == sum(records.output) - len(records)
    assert sum(run.token_gaps.bins.values()) == run.token_gaps.count
    # The gaps of a request add up to its time between first and last token.
    between = sum(e - t for e, t in zip(records.end_to_end, records.ttft, strict=True))
    assert run.token_gaps.total == pytest.approx(between, rel=1e-6, abs=1e-9)
    assert all(0 < t <= e + 1e-12 for t, e in zip(records.ttft, records.end_to_end, strict=True))
    for side in run.pools:
        assert side.router.loads == [0] * len(side.router.loads)
        for rank in side.ranks:
            assert not rank.running and not rank.waiting and rank.held_tokens == 0
            assert rank.cache is None or not rank.cache.pins
            assert all(lane.context == lane.to_come == lane.sequences == sum(lane.needs) == 0 for lane in rank.lanes)


@pytest.mark.parametrize("policy", list(Policy))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), stream=rows)
def test_both_modes_agree_and_conserve(policy, data, stream):
    deployment = Deployment(data.draw(pools(policy)))
    fast = simulate(deployment, Listed(stream))
    exact = simulate(deployment, Listed(stream), exact=True)
    assert_conserved(fast, len(stream))
    assert_conserved(exact, len(stream))
    assert_same(fast, exact)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), stream=rows)
def test_both_modes_agree_with_split_pools(data, stream):
    deployment = Deployment(
        data.draw(pools(Policy.VLLM)),
        prefill=data.draw(pools(Policy.VLLM)),
        transfer=lambda tokens: Transfer(egress=1e-3 + 1e-6 * tokens),
    )
    fast = simulate(deployment, Listed(stream))
    exact = simulate(deployment, Listed(stream), exact=True)
    assert_conserved(fast, len(stream))
    assert_conserved(exact, len(stream))
    assert_same(fast, exact)


def test_the_same_input_gives_the_same_numbers():
    rows = [(0.01, 100 + 7 * i % 300, 5 + i % 50, i % 3) for i in range(200)]
    pool = Pool(AffineSteps(kv_tokens=4000), EngineSettings(prefix_cache=True, hash_tokens=32), replicas=2)
    first, second = (simulate(Deployment(pool), Listed(rows)) for _ in range(2))
    assert list(first.records.end_to_end) == list(second.records.end_to_end)
    assert not math.isnan(summarize(first).ttft.mean)
