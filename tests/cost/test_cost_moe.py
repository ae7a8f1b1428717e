import pytest
from cost_device import DEVICE, EFFICIENCY, MATH, UPGRADES, faster, not_above, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.moe import active_experts, experts_seconds


def block(tokens, hidden=4096, width=1536, *, ep=1, tp=1, math="bf16", device=DEVICE, **more):
    return experts_seconds(
        tokens, hidden, width, 128, 8, ep=ep, tp=tp, math=math, accelerator=device, efficiency=EFFICIENCY, **more
    )


def test_one_token_reaches_top_k_experts_and_many_reach_all():
    assert active_experts(128, 8, 1) == pytest.approx(8.0)
    assert active_experts(128, 8, 1e6) == pytest.approx(128.0)
    assert active_experts(8, 8, 3) == pytest.approx(8.0)
    assert active_experts(128, 8, 0) == 0.0


def test_two_tokens_overlap_by_chance():
    # E*(1 - (1 - k/E)^2) = 2k - k^2/E
    assert active_experts(128, 8, 2) == pytest.approx(16 - 64 / 128)


def test_correlated_tokens_reach_fewer_experts():
    assert active_experts(128, 8, 16, skew=0.7) < active_experts(128, 8, 16)


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


def test_splitting_experts_or_their_width_is_faster_and_imbalance_slower():
    assert block(4096, ep=8) < block(4096)
    assert block(4096, tp=4) < block(4096)
    assert block(4096, ep=8, imbalance=1.5) > block(4096, ep=8)


def test_no_tokens_take_no_time():
    assert block(0) == 0.0
