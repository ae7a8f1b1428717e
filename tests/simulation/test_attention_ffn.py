"""Replay of models that are split between attention and feed-forward workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.api import Catalogs, search, simulate
from planner.job.job import Job
from planner.job.speculating import Speculating
from planner.job.traffic import Traffic
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.drafting import Drafting
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.simulation.deploy import Served
from planner.simulation.deploy_split import split_deployment, split_model
from planner.simulation.metrics import Summary, Target, summarize
from planner.simulation.simulator import simulate as run_events
from planner.simulation.streams import ClosedLoop, Fixed, Uniform

REPLICA = Catalogs().replica("stepfun-ai/step3", "h800-sxm", "fp8", "fp8", "vllm")
SPLIT = AttentionFfn(REPLICA, REPLICA)
ISL, OSL = 4096, 100
LENGTHS = Lengths(float(ISL), float(OSL))


def played(workers: Workers, users: int, *, ranks: int | None = None, output: Uniform | None = None) -> Summary:
    """A closed loop on one split model whose prompts cost next to nothing."""
    decode = replace(split_model((SPLIT, workers), LENGTHS), ranks=ranks)
    prefill = Served(REPLICA, Layout(8, 1, 1, 8), 64, Lengths(float(ISL), 1.0))
    outputs = output or Uniform(80, 120)
    run = run_events(split_deployment(prefill, decode, 0.04), ClosedLoop(users, Fixed(ISL), outputs, 6 * users, seed=1))
    return summarize(run, Target(None, None, None), warm_up=0.4)


def closed_form(workers: Workers, requests: float) -> float:
    return float(SPLIT.stages(workers, np.array([requests]), LENGTHS).iteration(workers.micro_batches)[0])


@pytest.mark.parametrize(("micro_batches", "ranks", "users"), [(3, 2, 256), (1, 2, 128), (3, 4, 24)])
def test_the_steady_state_is_that_of_the_closed_form(micro_batches: int, ranks: int, users: int) -> None:
    workers = Workers.one(Layout(1, 8), Layout(8, 1, 1, 8), (2, 2), micro_batches)
    found = played(workers, users, ranks=ranks)
    decoding = found.requests_per_s * (found.end_to_end.mean - found.ttft.mean) * 16 / ranks
    assert found.tpot.mean == pytest.approx(closed_form(workers, decoding), rel=0.04)


def test_all_ranks_wait_for_the_one_with_the_longest_contexts() -> None:
    workers = Workers.one(Layout(1, 8), Layout(8, 1, 1, 8), (1, 1), 3)
    even = played(workers, 64, output=Uniform(100, 100))
    uneven = played(workers, 64, output=Uniform(2, 198))
    assert uneven.itl.mean >= even.itl.mean * 0.99


def test_requests_beyond_the_memory_of_attention_workers_wait() -> None:
    workers = Workers.one(Layout(1, 1), Layout(8, 1, 1, 8), (1, 1), 3)
    slots = float(SPLIT.held(workers, LENGTHS).slots[0])
    found = played(workers, int(1.3 * slots))
    decoding = found.mean_batch * 65  # the mean over 64 prefill replicas, which decode nothing, and the one that does
    assert slots * 0.8 <= decoding <= slots


def test_a_searched_split_is_simulated_and_can_be_replayed() -> None:
    job = Job.model_validate(
        {
            "model": "stepfun-ai/step3", "fleet": {"gpus": {"h800-sxm": 40}},
            "workload": {"isl": 2000, "osl": 200}, "slo": {"ttft": 4.0, "tpot": 0.06}, "modes": ["af"], "top": 1,
            "simulate_top": 1,
        }
    )  # fmt: skip
    found = search(job)
    plan = found.plans[0]
    assert plan.mode == "af"
    assert plan.simulated is not None
    assert plan.simulated.tpot_ms.mean == pytest.approx(plan.predicted.tpot_ms.mean, rel=0.06)
    again = simulate(found, 1, Traffic(seed=1, requests=300, rate=plan.predicted.request_rate * 0.5))
    assert again.run.finished == 300
    assert again.summary.stability.stable


def test_drafts_of_a_split_are_played_as_its_closed_form_has_them() -> None:
    """Passes of an iteration and tokens that it yields, over all requests; 1,000 tokens leave little to luck."""
    how = Drafting(Speculating(method="eagle", acceptance=(0.7,))).speculation(REPLICA, 2)
    side, workers = replace(REPLICA, speculation=how), Workers.one(Layout(1, 8), Layout(8, 1, 1, 8), (2, 2), 3)
    split, sizes = AttentionFfn(side, side), Lengths(float(ISL), 1000.0)
    decode = replace(split_model((split, workers), sizes), ranks=2)
    prefill = Served(side, Layout(8, 1, 1, 8), 64, Lengths(float(ISL), 1.0))
    loop = ClosedLoop(128, Fixed(ISL), Uniform(800, 1200), 768, seed=1)
    found = summarize(run_events(split_deployment(prefill, decode, 0.04), loop), Target(None, None, None), warm_up=0.4)
    decoding = found.requests_per_s * (found.end_to_end.mean - found.ttft.mean) * 16 / 2
    assert found.tpot.mean == pytest.approx(
        float(split.token_seconds(workers, np.array([decoding]), sizes)[0]), rel=0.04
    )
    assert found.itl.mean > 1.5 * found.tpot.mean  # several tokens at once
