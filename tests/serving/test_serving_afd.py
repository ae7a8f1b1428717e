"""Attention and feed-forward blocks on GPUs of their own: bounds, monotonicity, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.api import Catalogs, estimate
from planner.architecture.catalog import load_model
from planner.architecture.demand import attention_core_flops, attention_linear_flops, ffn_flops, kv_bytes_read
from planner.architecture.linears import expert_linears, mixer_linears
from planner.architecture.model import MoeFfn
from planner.job.points import parse_points
from planner.serving.afd import AttentionFfn, Workers, barrier
from planner.serving.ffn_worker import FfnWorkers, reach
from planner.serving.halves import split_problem
from planner.serving.lengths import Lengths
from planner.serving.ping_pong import Stages

CATALOGS = Catalogs()
REPLICA = CATALOGS.replica("stepfun-ai/step3", "h800-sxm", "fp8", "fp8", "vllm")
LENGTHS = Lengths(4096.0, 512.0)


def workers(micro_batches: float = 3.0, *, attention: float = 2, ffn: float = 2, ep: float = 8) -> Workers:
    return Workers(*(np.array([float(x)]) for x in (attention, 1, 8, ffn, ep, 8, micro_batches)))


def seconds(split: AttentionFfn, layout: Workers, requests: float, lengths: Lengths = LENGTHS) -> float:
    return float(split.stages(layout, np.array([requests]), lengths).iteration(layout.micro_batches)[0])


def iteration(split: AttentionFfn, m: float, requests: float) -> float:
    return seconds(split, workers(m), requests)


def with_links(network: float, inside: float = 200e9, latency: float = 0.8e-6) -> AttentionFfn:
    link = replace(REPLICA.accelerator.scale_up, bandwidth=inside, latency=latency)
    accelerator = replace(REPLICA.accelerator, network_bandwidth=network, scale_up=link)
    side = REPLICA.on(accelerator, REPLICA.efficiency)
    return AttentionFfn(side, side)


def ideal_seconds(layout: Workers, requests: float, context: float) -> float:
    """The slower side at datasheet rates, everything else for nothing (arXiv 2507.19427, section 2), and every weight
    read once by each micro-batch, which the paper's cost per token leaves out: its own deployment runs at 39 % without.
    """
    model, chip = REPLICA.model, REPLICA.accelerator
    tokens = requests / float(layout.micro_batches[0])
    own, sharers = tokens / float(layout.attention_gpus[0]), float(layout.ffn_side[0])
    cache = max(
        float(attention_core_flops(model, context)) / chip.peak("bf16"),
        float(kv_bytes_read(model, context, 1.0)) / chip.memory_bandwidth,
    )
    kept = sum(x.parameters for layer in model.layers for x in mixer_linears(layer.mixer, model.hidden))
    experts = sum(
        layer.ffn.experts * x.parameters
        for layer in model.layers
        if isinstance(layer.ffn, MoeFfn)
        for x in expert_linears(layer.ffn, model.hidden)
    )
    linears = max(own * attention_linear_flops(model) / chip.peak("fp8"), kept / chip.memory_bandwidth)
    attention = own * cache + linears
    blocks = max(tokens * ffn_flops(model) / chip.peak("fp8"), experts / chip.memory_bandwidth) / sharers
    return float(layout.micro_batches[0]) * max(attention, blocks)


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


def test_more_micro_batches_than_the_stages_need_gain_nothing() -> None:
    stages = Stages(*(np.array([x]) for x in (1.0, 0.2, 0.9, 0.2, 0.0)), layers=1000.0)
    two, three, six = (float(stages.iteration(np.array([m]))[0]) / m for m in (2.0, 3.0, 6.0))
    assert two == pytest.approx(2.3 / 2, rel=1e-3)  # two hide all but the way of one through a layer
    assert three == pytest.approx(1.0, rel=1e-3)
    assert six == pytest.approx(1.0, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(slow=st.floats(1e9, 1e11), gain=st.floats(1.0, 20.0), ep=st.sampled_from([1.0, 2.0, 8.0]))
def test_faster_links_never_slow_an_iteration(slow: float, gain: float, ep: float) -> None:
    layout = workers(ep=ep)
    for first, second in (((slow,), (slow * gain,)), ((50e9, slow), (50e9, slow * gain))):
        assert seconds(with_links(*second), layout, 3072.0) <= seconds(with_links(*first), layout, 3072.0) * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(
    attention=st.integers(1, 4), ffn=st.sampled_from([1, 2, 4]), ep=st.sampled_from([1, 2, 4, 8]),
    context=st.sampled_from([4096.0, 8192.0, 16384.0, 32768.0]), requests=st.floats(3072, 12288),
)  # fmt: skip
def test_iterations_grow_with_load_and_stay_above_the_ideal(
    attention: int, ffn: int, ep: int, context: float, requests: float
) -> None:
    split, layout = AttentionFfn(REPLICA, REPLICA), workers(attention=attention, ffn=ffn, ep=ep)
    lengths = Lengths(context, 1.0)
    found = seconds(split, layout, requests, lengths)
    assert found >= ideal_seconds(layout, requests, context)
    assert found <= seconds(split, layout, requests * 1.3, lengths) * (1 + 1e-9)
    assert found <= seconds(split, layout, requests, Lengths(context * 1.5, 1.0)) * (1 + 1e-9)
    more = workers(attention=attention + 1, ffn=ffn, ep=ep)
    assert seconds(split, more, requests, lengths) <= found * (1 + 1e-9)


@pytest.mark.parametrize(
    ("attention", "ffn", "context", "requests"),
    [(2, 2, 4096, 6144), (3, 2, 8192, 6144), (4, 2, 16384, 6144), (2, 1, 8192, 6144), (1, 1, 4096, 6144)],
)
def test_full_pools_reach_more_than_half_of_the_ideal(attention: int, ffn: int, context: float, requests: int) -> None:
    layout = workers(attention=attention, ffn=ffn)
    found = seconds(AttentionFfn(REPLICA, REPLICA), layout, requests, Lengths(float(context), 1.0))
    assert found <= 2 * ideal_seconds(layout, requests, context)


def test_without_network_cost_only_the_slower_side_counts() -> None:
    split, layout = with_links(1e18, 1e18, 0.0), workers(ep=8)
    stages = split.stages(layout, np.array([6144.0]), LENGTHS)
    sides = np.maximum(stages.attention, stages.ffn)
    assert float(stages.iteration(layout.micro_batches)[0]) == pytest.approx(3 * float(sides[0]), rel=0.01)
    assert stages.limiting(layout.micro_batches)[0] in ("attention", "ffn")


def test_both_sides_in_one_domain_need_no_network() -> None:
    chip = replace(REPLICA.accelerator, scale_up=replace(REPLICA.accelerator.scale_up, domain_size=32))
    side = REPLICA.on(replace(chip, network_bandwidth=1e6), REPLICA.efficiency)
    together = seconds(AttentionFfn(side, side), workers(), 3072.0)
    assert together <= seconds(with_links(50e9), workers(), 3072.0)


def test_graphs_that_stop_for_messages_delay_each_of_them_and_occupy_nothing() -> None:
    stops = replace(REPLICA, engine=replace(REPLICA.engine, exchange_in_graph=False, exchange_start=400e-6))
    layout, requests = workers(), np.array([3072.0])
    plain = AttentionFfn(REPLICA, REPLICA).stages(layout, requests, LENGTHS)
    for attention, ffn in ((1, 0), (0, 1), (1, 1)):
        split = AttentionFfn(stops if attention else REPLICA, stops if ffn else REPLICA)
        found = split.stages(layout, requests, LENGTHS)
        assert found.total[0] - plain.total[0] == pytest.approx((attention + ffn) * 200e-6 * plain.layers)
        assert found.slowest[0] == plain.slowest[0]


def test_experts_are_spread_as_far_as_they_go_and_copied_beyond() -> None:
    def sharing(name: str, count: float, ep: float) -> float:
        replica = CATALOGS.replica(name, "h800-sxm", "bf16", "bf16", "vllm")
        blocks = FfnWorkers.of(replica, np.array([count]), np.array([8.0]), np.array([ep]))
        return float(blocks.sharing[0])

    mixtral = "mistralai/Mixtral-8x22B-Instruct-v0.1"
    assert sharing(mixtral, 8, 1) == 8  # one expert a worker
    assert sharing(mixtral, 2, 8) == 1  # 16 groups for 8 experts: two copies
    assert sharing("Qwen/Qwen3-235B-A22B", 3, 8) == 3  # 128 experts over 24 groups: the fullest holds 6
    assert sharing("meta-llama/Llama-3.1-8B-Instruct", 2, 1) == 1  # dense blocks fit one worker
    assert sharing("meta-llama/Llama-3.1-405B-Instruct", 2, 1) == 2  # 1.3 TB of blocks do not


def test_ranks_wait_for_the_longest_contexts() -> None:
    alone, many = (float(barrier(np.array([64.0]), np.array([n]), LENGTHS)[0]) for n in (1.0, 16.0))
    assert alone == pytest.approx(1.0, abs=1e-6)
    # cv = 512/sqrt(12)/4352 = 0.034; the largest of 16 normals lies 1.77 deviations up; 8 = sqrt(64).
    assert many == pytest.approx(1 + 0.034 * 1.77 / 8, rel=1e-3)


def test_a_token_of_three_experts_reaches_most_of_two_workers() -> None:
    # Step-3: 48 experts, 3 per token: 1 - C(24,3)/C(48,3) = 0.883; its five dense layers send a token to one worker.
    ffn = next(layer.ffn for layer in REPLICA.model.layers if isinstance(layer.ffn, MoeFfn))
    assert float(reach(ffn, np.array([2.0]))[0]) == pytest.approx(0.8830, abs=1e-4)
    assert float(reach(ffn, np.array([1.0]))[0]) == pytest.approx(1.0)
    sent, _ = AttentionFfn(REPLICA, REPLICA).blocks(workers()).visits()
    assert float(sent[0]) == pytest.approx((56 * 2 * 0.8830 + 5) / 61, abs=1e-3)


def test_models_without_a_boundary_are_refused_with_the_reason() -> None:
    problem = split_problem(load_model("qwen/qwen3-next-80b-a3b"))
    assert problem is not None
    assert "hybrid state" in str(problem)
    assert split_problem(load_model("deepseek-ai/DeepSeek-V3")) is None
    assert split_problem(load_model("meta-llama/Llama-3.1-70B-Instruct")) is None  # dense blocks are a boundary too


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


def test_a_measured_imbalance_of_experts_holds_in_ffn_workers_too() -> None:
    side = replace(REPLICA, engine=replace(REPLICA.engine, expert_imbalance=1.5))
    even, uneven = (AttentionFfn(r, r).stages(workers(), np.array([12288.0]), LENGTHS) for r in (REPLICA, side))
    assert float(uneven.attention[0]) == float(even.attention[0])
    assert 1.1 < float(uneven.ffn[0] / even.ffn[0]) < 1.5


def test_requests_are_whole() -> None:
    """One request fills one micro-batch of one rank, however many there are to fill."""
    header = (
        "id,model,gpu,weights,kv,mode,isl,osl,concurrency,attention_workers,attention_tp,attention_attention_dp,"
        "ffn_workers,ffn_tp,ffn_ep,micro_batches"
    )
    row = "x,stepfun-ai/step3,h800-sxm,fp8,fp8,af,4096,512,1,2,1,8,2,8,8,"
    alone, three = estimate(list(parse_points([header, row + "1", row + "3"], "points.csv")))
    assert alone.tpot == three.tpot
    split = AttentionFfn(REPLICA, REPLICA)
    few = split.stages(workers(1.0), np.array([2.0]), LENGTHS).attention
    assert float(few[0]) >= float(split.stages(workers(1.0), np.array([16.0]), LENGTHS).attention[0]) * 0.99
