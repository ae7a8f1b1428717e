import dataclasses

import numpy as np
import pytest
from cost_device import DEVICE, EFFICIENCY, MATH, UPGRADES, faster, not_above, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.load import load_hardware
from planner.cost.efficiency import load_efficiency
from planner.cost.moe import active_experts, experts_seconds, largest_of, loaded_rank


def block(tokens, hidden=4096, width=1536, *, ep=1, tp=1, math="bf16", device=DEVICE, **more):
    more.setdefault("efficiency", EFFICIENCY)
    return experts_seconds(tokens, hidden, width, 128, 8, ep=ep, tp=tp, math=math, accelerator=device, **more)


def test_one_token_reaches_top_k_experts_and_many_reach_all():
    assert active_experts(128, 8, 1) == pytest.approx(8.0)
    assert active_experts(128, 8, 1e6) == pytest.approx(128.0)
    assert active_experts(8, 8, 3) == pytest.approx(8.0)
    assert active_experts(128, 8, 0) == 0.0


def test_two_tokens_overlap_by_chance():
    # E*(1 - (1 - k/E)^2) = 2k - k^2/E
    assert active_experts(128, 8, 2) == pytest.approx(16 - 64 / 128)


def test_uneven_routing_reaches_fewer_experts_but_one_token_still_reaches_top_k():
    assert active_experts(128, 8, 16, evenness=2.0) < active_experts(128, 8, 16)
    assert active_experts(128, 8, 1, evenness=2.0) == pytest.approx(8.0)
    assert active_experts(128, 8, 1e9, evenness=2.0) == pytest.approx(128.0)


def test_uneven_routing_is_that_of_gamma_distributed_popularity():
    # the share of experts that 64 tokens miss, drawn: popularity p ~ Gamma(a, mean k/E), missed with exp(-64*p)
    a, rng = 2.0, np.random.default_rng(1)
    mean = -np.log1p(-8 / 128)
    missed = np.exp(-64 * rng.gamma(a, mean / a, 200_000)).mean()
    assert active_experts(128, 8, 64, evenness=a) == pytest.approx(128 * (1 - missed), rel=2e-3)


def test_the_largest_of_normal_draws_is_that_of_a_sample():
    draws = np.random.default_rng(2).standard_normal((50_000, 8))
    assert largest_of(8) == pytest.approx(draws.max(axis=1).mean(), abs=0.01)
    assert largest_of(1) == 0.0


def test_the_most_loaded_rank_is_that_of_drawn_tokens():
    # 32 tokens choose 8 of 256 experts evenly; 8 ranks of 32 experts
    rng = np.random.default_rng(3)
    chosen = rng.random((400, 32, 256)).argpartition(8, axis=2)[:, :, :8] // 32
    rows = np.stack([(chosen == rank).sum(axis=(1, 2)) for rank in range(8)], axis=1).max(axis=1).mean()
    assert loaded_rank(256, 8, 32, 8)[0] == pytest.approx(rows, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1e5), st.floats(1.0, 3.0), st.integers(0, 4), st.sampled_from([1.5, 4.0, np.inf]))
def test_load_grows_with_tokens_and_stays_within_what_a_rank_holds(tokens, factor, doublings, evenness):
    ep = 2**doublings
    rows, busy = loaded_rank(128, 8, tokens, ep, evenness=evenness)
    more_rows, more_busy = loaded_rank(128, 8, tokens * factor, ep, evenness=evenness)
    assert not_above(rows, more_rows) and not_above(busy, more_busy)
    assert rows >= tokens * 8 / ep * (1 - 1e-12) and rows <= tokens * min(8, 128 / ep) * (1 + 1e-12)
    assert busy <= 128 / ep * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(sizes(1 << 20), sizes(1 << 14), sizes(1 << 14), MATH, st.integers(0, 2), st.floats(1.0, 4.0))
def test_time_never_falls_when_a_size_grows(tokens, hidden, width, math, which, factor):
    small = [float(tokens), float(hidden), float(width)]
    large = [x * factor if i == which else x for i, x in enumerate(small)]
    assert not_above(block(*small, math=math), block(*large, math=math))


@settings(max_examples=40, deadline=None)
@given(sizes(1 << 18), MATH, st.sampled_from(UPGRADES))
def test_a_better_accelerator_is_never_slower(tokens, math, upgrade):
    assert not_above(block(tokens, math=math, device=faster(**upgrade)), block(tokens, math=math))


def test_splitting_experts_or_their_width_is_faster_and_uneven_routing_slower():
    assert block(4096, ep=8) < block(4096)
    assert block(4096, tp=4) < block(4096)
    assert block(4096, ep=8, evenness=1.5) > block(4096, ep=8)


def test_no_tokens_take_no_time():
    assert block(0) == 0.0


def test_four_bit_weights_beside_eight_bit_inputs_run_a_kernel_of_their_own_where_units_mix_both():
    b200 = load_hardware().accelerators["b200-sxm"]
    mixing = {"device": b200, "efficiency": load_efficiency("blackwell")}
    widening = {**mixing, "device": dataclasses.replace(b200, flops={"bf16": 2.25e15, "fp8": 4.5e15})}
    narrow = {"math": "fp8", "weight_bytes": 0.53125}
    assert block(4, **narrow, **mixing) < block(4, **narrow, **widening)
    # bytes decide, not the unit alone: 8-bit weights run one kernel on both
    assert block(4, math="fp8", **mixing) == block(4, math="fp8", **widening)
    # a family of which nothing was measured has the kernel too
    pooled = {**mixing, "efficiency": load_efficiency("unheard-of")}
    assert block(4, **narrow, **pooled) == pytest.approx(block(4, **narrow, **mixing), rel=0.2)


@settings(max_examples=40, deadline=None)
@given(sizes(1 << 18), st.floats(1.0, 4.0))
def test_mixed_products_never_take_less_time_for_more_tokens(tokens, factor):
    mixed = dataclasses.replace(DEVICE, flops={**DEVICE.flops, "fp4": 3958e12})
    options = {"math": "fp8", "weight_bytes": 0.53125, "device": mixed}
    assert not_above(block(tokens, **options), block(tokens * factor, **options))
