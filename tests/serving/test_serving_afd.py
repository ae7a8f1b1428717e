"""Attention and feed-forward blocks on GPUs of their own: bounds, monotonicity, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.api import Catalogs, estimate
from planner.architecture.catalog import load_model
from planner.job.points import parse_points
from planner.serving.afd import AttentionFfn, Stages, Workers, barrier, split_problem, worker_reach
from planner.serving.lengths import Lengths

CATALOGS = Catalogs()
REPLICA = CATALOGS.replica("stepfun-ai/step3", "h800-sxm", "fp8", "fp8", "vllm")
LENGTHS = Lengths(4096.0, 512.0)


def workers(micro_batches: float = 3.0) -> Workers:
    return Workers(*(np.array([float(x)]) for x in (2, 1, 8, 2, 8, 8, micro_batches)))


def iteration(split: AttentionFfn, m: float, requests: float) -> float:
    return float(split.stages(workers(m), np.array([requests]), LENGTHS).iteration(np.array([m]))[0])


def with_network(bandwidth: float) -> AttentionFfn:
    accelerator = replace(REPLICA.accelerator, network_bandwidth=bandwidth)
    side = REPLICA.on(accelerator, REPLICA.efficiency)
    return AttentionFfn(side, side)


def test_balanced_stages_without_network_take_the_time_of_one_side() -> None:
    # Two equal stages and two micro-batches: both sides always work, so an iteration is 2 * t, and the fill of a layer.
    one, none = np.array([1.0]), np.zeros(1)
    balanced = Stages(one, none, one, none, none, layers=1000.0)
    assert balanced.iteration(np.array([2.0]))[0] == pytest.approx(2.0, rel=1e-3)
    assert balanced.iteration(np.array([1.0]))[0] == pytest.approx(2.0)


@settings(max_examples=25, deadline=None)
@given(micro=st.floats(16, 4096))
def test_one_micro_batch_is_never_faster_than_three_of_its_size(micro: float) -> None:
    split = AttentionFfn(REPLICA, REPLICA)
    alone, three = iteration(split, 1.0, micro), iteration(split, 3.0, 3 * micro)
    assert micro / alone <= 3 * micro / three * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(slow=st.floats(1e9, 1e11), gain=st.floats(1.0, 20.0))
def test_a_faster_network_never_slows_an_iteration(slow: float, gain: float) -> None:
    assert iteration(with_network(slow * gain), 3.0, 3072.0) <= iteration(with_network(slow), 3.0, 3072.0) * (1 + 1e-12)


def test_ranks_wait_for_the_longest_contexts() -> None:
    alone, many = (float(barrier(np.array([64.0]), np.array([n]), LENGTHS)[0]) for n in (1.0, 16.0))
    assert alone == pytest.approx(1.0, abs=1e-6)
    # cv = 512/sqrt(12)/4352 = 0.034; the largest of 16 normals lies 1.77 deviations up; 8 = sqrt(64).
    assert many == pytest.approx(1 + 0.034 * 1.77 / 8, rel=1e-3)


def test_a_token_of_three_experts_reaches_most_of_two_workers() -> None:
    # Step-3: 48 experts, 3 per token on 56 of 61 layers: 1 - C(24,3)/C(48,3) = 0.883 there, 1 on dense layers.
    reach = float(worker_reach(REPLICA.model, np.array([2.0]))[0])
    assert 0.883 < reach < 0.90
    assert float(worker_reach(REPLICA.model, np.array([1.0]))[0]) == pytest.approx(1.0)


def test_models_without_a_boundary_are_refused_with_the_reason() -> None:
    problem = split_problem(load_model("qwen/qwen3-next-80b-a3b"))
    assert problem is not None
    assert "hybrid state" in str(problem)
    assert split_problem(load_model("deepseek-ai/DeepSeek-V3")) is None


def test_rows_say_why_they_cannot_be_predicted() -> None:
    header = (
        "id,model,gpu,weights,kv,mode,isl,osl,concurrency,attention_workers,attention_tp,attention_attention_dp,"
        "ffn_workers,ffn_tp,ffn_ep,micro_batches"
    )
    rows = [
        "fine,stepfun-ai/step3,h800-sxm,fp8,fp8,af,4096,512,3072,2,1,8,2,8,8,3",
        "hybrid,qwen/qwen3-next-80b-a3b,h800-sxm,fp8,fp8,af,4096,512,64,2,1,8,2,8,8,3",
        "full,stepfun-ai/step3,h800-sxm,fp8,fp8,af,4096,512,90000,2,1,8,2,8,8,3",
        "half,stepfun-ai/step3,h800-sxm,fp8,fp8,af,4096,512,64,2,1.5,8,2,8,8,3",
    ]
    found = estimate(list(parse_points([header, *rows], "points.csv")))
    assert [e.status for e in found] == ["ok", "unsupported", "infeasible", "unsupported"]
    assert "hybrid state" in found[1].reason
    assert "fit on an attention rank" in found[2].reason
    assert "attention_tp" in found[3].reason
