"""A re-check simulates a part of a split and says what a long run of the whole says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.search.ranking import Candidate
from planner.search.search import search
from planner.serving.engine import load_engine
from planner.simulation import AffineSteps, Deployment, EngineSettings, Pool, Transfer, simulate, summarize
from planner.simulation.check import check, performance
from planner.simulation.full_swing import Standing
from planner.simulation.metrics import Summary
from planner.simulation.part import Part, steady_batch
from planner.simulation.settings import Drafts
from planner.simulation.streams import ClosedLoop, Fixed, OpenStream, Poisson, Uniform
from planner.simulation.tables import Tables

PRECISION = {"weights": ("bf16",), "kv": ("bf16",)}


@cache
def split(prefills: int, **changes: float) -> tuple[Candidate, Job]:
    """The best split of a small model over eight GPUs with so many prefill replicas, at nine tenths of its rate."""
    asked = job(2000, 200, modes=("pd",), ttft=0.5, tpot=0.03, **PRECISION, **changes)
    found = search(load_model("meta-llama/Llama-3.1-8B"), load_engine("vllm"), [supply("h100-sxm", 8)], asked)
    best = next(c for c in found.ranked if c.pools[0].replicas == prefills)
    rate = None if "concurrency" in changes else best.rate * 0.9
    return best, asked.model_copy(update={"workload": asked.workload.model_copy(update={"rate": rate})})


def whole(candidate: Candidate, asked: Job, count: int) -> Summary:
    """A long run of all ranks, from an empty system."""
    part = Part(candidate, asked, candidate.instances, candidate.ranks, prefills=candidate.pools[0].replicas)
    prompt, output = Fixed(2000), Fixed(200)
    if asked.workload.concurrency:
        stream = ClosedLoop(round(asked.workload.concurrency), prompt, Uniform(160, 240), count, seed=11)
    else:
        assert asked.workload.rate is not None
        stream = OpenStream(Poisson(asked.workload.rate), prompt, output, count, seed=11)
    return summarize(simulate(part.deployed(Tables()), stream, details=False), warm_up=0.3)


@pytest.mark.parametrize("prefills", [4, 5])
def test_a_part_of_the_decode_pool_shows_what_all_of_it_does(prefills):
    """Also where the counts of the pools share no factor. Means of three short runs; single ones scatter."""
    candidate, asked = split(prefills)
    candidate = replace(candidate, rate=asked.workload.rate)
    part = Part.of(candidate, asked)
    assert part.one_of > 1 and part.prefills == prefills
    truth = whole(candidate, asked, 12_000)
    seen = [check(candidate, asked.model_copy(update={"seed": seed})).summary for seed in range(3)]
    for statistic, tolerance in (("mean", 0.08), ("p50", 0.08), ("p95", 0.15)):
        mean = sum(getattr(s.ttft, statistic) for s in seen) / 3
        assert mean == pytest.approx(getattr(truth.ttft, statistic), rel=tolerance)
        mean = sum(getattr(s.tpot, statistic) for s in seen) / 3
        assert mean == pytest.approx(getattr(truth.tpot, statistic), rel=0.04)


def test_users_of_a_closed_loop_are_out_of_step_from_the_start():
    candidate, asked = split(3, concurrency=300.0)
    truth, checked = whole(candidate, asked, 9000), check(candidate, asked)
    seen = performance(checked)
    assert seen is not None
    assert checked.summary.ttft.mean == pytest.approx(truth.ttft.mean, rel=0.12)
    assert checked.summary.ttft.p95 == pytest.approx(truth.ttft.p95, rel=0.2)
    assert checked.summary.tpot.mean == pytest.approx(truth.tpot.mean, rel=0.03)
    assert seen.request_rate == pytest.approx(truth.requests_per_s, rel=0.03)


def two_pools(one_of: int, decode_replicas: int) -> Deployment:
    steps = AffineSteps(per_token=4e-8, kv_tokens=200_000)
    return Deployment(
        Pool(steps, EngineSettings(), replicas=decode_replicas),
        Pool(steps, EngineSettings(), replicas=3),
        transfer=lambda tokens: Transfer(egress=1e-3, ingress=1e-3),
        answers_after_transfer=True,
        one_of=one_of,
    )


@settings(max_examples=25, deadline=None)
@given(one_of=st.integers(1, 6), count=st.integers(1, 40), output=st.integers(1, 60), seed=st.integers(0, 9))
def test_every_request_is_recorded_once_whoever_decodes_it(one_of, count, output, seed):
    run = simulate(two_pools(one_of, 1), OpenStream(Poisson(30.0), Fixed(300), Fixed(output), count, seed=seed))
    records = run.records
    assert sorted(records.number) == list(range(count)) and run.leaked_blocks == 0
    assert all(0 < t <= e for t, e in zip(records.ttft, records.end_to_end, strict=True))


def test_requests_that_are_not_simulated_see_what_others_see():
    """Six decode replicas, or one of them that gets a sixth of the requests."""
    stream = OpenStream(Poisson(60.0), Fixed(300), Fixed(100), 3000, seed=4)
    all_of_them, one = (summarize(simulate(two_pools(n, 6 // n), stream), warm_up=0.2) for n in (1, 6))
    assert one.ttft.mean == pytest.approx(all_of_them.ttft.mean, rel=0.01)
    assert one.ttft.p95 == pytest.approx(all_of_them.ttft.p95, rel=0.02)
    assert one.tpot.mean == pytest.approx(all_of_them.tpot.mean, rel=0.02)
    assert one.requests_per_s == pytest.approx(all_of_them.requests_per_s, rel=0.01)


def test_only_a_pool_behind_another_one_can_be_a_part():
    with pytest.raises(ValueError, match="one_of"):
        Deployment(Pool(AffineSteps()), one_of=2)


@settings(max_examples=40, deadline=None)
@given(rate=st.floats(0.01, 30.0), output=st.integers(2, 400), drafts=st.booleans())
def test_the_steady_batch_obeys_littles_law(rate, output, drafts):
    steps = AffineSteps(per_token=5e-8, kv_tokens=400_000)
    pool = Pool(steps, EngineSettings(), drafts=Drafts(1.5, 0.2, 3) if drafts else None)
    batch = steady_batch(pool, rate, 500, output)
    step = steps.base + steps.per_sequence * batch + steps.per_token * batch * (500 + 0.5 * output)
    needed = rate * (output - 1) / (1.5 if drafts else 1.0) * step
    most = min(steps.max_sequences, steps.kv_tokens // (500 + output))
    assert batch == pytest.approx(needed, rel=1e-6, abs=0.01 * needed + 0.01) or batch == most < needed


@given(st.floats(0.0, 0.9), st.integers(100, 2000))
def test_what_stands_has_the_residual_life_of_its_outputs(spread, output):
    """Renewal theory: the mean left is E[output^2] / (2 E[output])."""
    left = [request.output for request in Standing(500, 10, output, spread=spread).requests()]
    assert sum(left) / 500 == pytest.approx(output * (1 + spread**2 / 3) / 2, rel=0.02, abs=1.0)
    assert all(2 <= tokens <= output * (1 + spread) + 1 for tokens in left)


def test_plans_that_share_pools_share_their_tables():
    candidate, asked = split(4)
    tables = Tables()
    first, second = (Part.of(c, asked).deployed(tables) for c in (candidate, replace(candidate, rate=1.0)))
    assert first.prefill is not None and second.prefill is not None
    assert first.prefill.steps is second.prefill.steps and first.serve.steps is second.serve.steps
    assert first.transfer is second.transfer
