import numpy as np
import pytest
from cost_device import DEVICE, EFFICIENCY, KEYS, MATH, UPGRADES, faster, not_above, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.gemm import gemm_seconds


@settings(max_examples=60, deadline=None)
@given(sizes(1 << 22), sizes(1 << 17), sizes(1 << 17), MATH, st.integers(0, 2), st.floats(1.0, 5.0))
def test_time_never_falls_when_a_size_grows(m, n, k, math, which, factor):
    small = [float(m), float(n), float(k)]
    large = [x * factor if i == which else x for i, x in enumerate(small)]
    assert not_above(gemm_seconds(*small, math=math, **KEYS), gemm_seconds(*large, math=math, **KEYS))


@settings(max_examples=60, deadline=None)
@given(sizes(1 << 20), sizes(1 << 16), sizes(1 << 16), MATH, st.sampled_from(UPGRADES))
def test_a_better_accelerator_is_never_slower(m, n, k, math, upgrade):
    old = gemm_seconds(m, n, k, math=math, **KEYS)
    new = gemm_seconds(m, n, k, math=math, accelerator=faster(**upgrade), efficiency=EFFICIENCY)
    assert not_above(new, old)


def test_no_tokens_take_no_time():
    assert gemm_seconds(0, 4096, 4096, math="fp8", **KEYS) == 0.0


def test_one_token_costs_launch_weights_and_pipeline_fill():
    # Weights of 64 Mi elements in 2 bytes dwarf everything else, so the time is close to bytes/(em*BW).
    constants = EFFICIENCY.gemm["bf16"]
    seconds = 2.0 * 8192 * 8192 / (constants.memory * DEVICE.memory_bandwidth)
    floor = constants.launch + seconds + constants.fill * seconds**0.5
    assert gemm_seconds(1, 8192, 8192, math="bf16", **KEYS) == pytest.approx(floor, rel=0.05)


def test_large_product_reaches_the_compute_share():
    share = 2.0 * 16384**3 / DEVICE.flops["bf16"] / gemm_seconds(16384, 16384, 16384, math="bf16", **KEYS)
    assert 0.6 < share < EFFICIENCY.gemm["bf16"].compute


def test_four_bit_weights_help_few_tokens_and_not_many():
    few = [gemm_seconds(4, 8192, 8192, math="bf16", weight_bytes=b, **KEYS) for b in (0.5625, 2.0)]
    many = [gemm_seconds(16384, 8192, 8192, math="bf16", weight_bytes=b, **KEYS) for b in (0.5625, 2.0)]
    assert few[0] < 0.5 * few[1]
    assert many[0] > many[1]


def test_launch_can_be_that_of_a_captured_graph():
    standalone = gemm_seconds(1, 512, 512, math="bf16", **KEYS)
    captured = gemm_seconds(1, 512, 512, math="bf16", launch=0.0, **KEYS)
    assert standalone - captured == pytest.approx(EFFICIENCY.gemm["bf16"].launch)


def test_arrays_broadcast_and_agree_with_single_points():
    m = np.array([[1.0], [100.0], [5000.0]])
    n = np.array([512.0, 4096.0])
    grid = gemm_seconds(m, n, 1024.0, math="fp8_block", **KEYS)
    assert grid.shape == (3, 2)
    assert grid[1, 1] == gemm_seconds(100, 4096, 1024, math="fp8_block", **KEYS)


def test_math_that_the_hardware_lacks_runs_wider():
    without = faster()
    object.__setattr__(without, "flops", {"bf16": 989e12})
    fp8 = gemm_seconds(8192, 8192, 8192, math="fp8", accelerator=without, efficiency=EFFICIENCY)
    bf16 = gemm_seconds(8192, 8192, 8192, math="bf16", accelerator=without, efficiency=EFFICIENCY)
    assert fp8 >= bf16
