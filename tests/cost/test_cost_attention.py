import numpy as np
import pytest
from cost_device import DEVICE, EFFICIENCY, KEYS, UPGRADES, faster, not_above, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.attention import (
    attended_pairs,
    attention_decode_seconds,
    attention_prefill_seconds,
    indexer_seconds,
    latent_decode_seconds,
    latent_prefill_seconds,
)

MLA = {"nope_dim": 128.0, "rope_dim": 64.0, "value_dim": 128.0, "kv_bytes": 2.0}


def prefill(q, p, s, *, window=None, device=DEVICE, math="bf16"):
    return attention_prefill_seconds(
        q, p, s, 32, 8, 128, 128, math=math, kv_bytes=2.0, window=window, accelerator=device,
        efficiency=EFFICIENCY,
    )  # fmt: skip


def decode(s, c, *, window=None, device=DEVICE):
    return attention_decode_seconds(
        s, c, 32, 8, 128, 128, kv_bytes=2.0, window=window, accelerator=device, efficiency=EFFICIENCY
    )


def latent_prefill(q, p, s, *, device=DEVICE, top_k=None):
    return latent_prefill_seconds(q, p, s, 16, top_k=top_k, accelerator=device, efficiency=EFFICIENCY, **MLA)


def latent_decode(s, c, *, device=DEVICE, top_k=None):
    return latent_decode_seconds(
        s, c, 16, 512.0, 64.0, kv_bytes=2.0, top_k=top_k, accelerator=device, efficiency=EFFICIENCY
    )


def indexer(q, p, s, *, device=DEVICE):
    return indexer_seconds(q, p, s, 64.0, 128.0, accelerator=device, efficiency=EFFICIENCY)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60))
def test_pairs_equal_the_sum_over_queries(q, p, window):
    assert attended_pairs(q, p, window) == sum(min(p + i, window) for i in range(1, q + 1))
    assert attended_pairs(q, p) == sum(p + i for i in range(1, q + 1))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([prefill, latent_prefill, indexer]),
    sizes(1 << 17),
    st.integers(0, 1 << 20),
    sizes(1 << 9),
    st.integers(0, 2),
    st.floats(1.0, 4.0),
    st.sampled_from(UPGRADES),
)
def test_prefill_grows_with_work_and_falls_with_hardware(kernel, q, p, s, which, factor, upgrade):
    small = [float(q), float(p), float(s)]
    large = [x * factor if i == which else x for i, x in enumerate(small)]
    assert not_above(kernel(*small), kernel(*large))
    assert not_above(kernel(*small, device=faster(**upgrade)), kernel(*small))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([decode, latent_decode]),
    sizes(1 << 13),
    sizes(1 << 21),
    st.integers(0, 1),
    st.floats(1.0, 4.0),
    st.sampled_from(UPGRADES),
)
def test_decode_grows_with_work_and_falls_with_hardware(kernel, s, c, which, factor, upgrade):
    small = [float(s), float(c)]
    large = [x * factor if i == which else x for i, x in enumerate(small)]
    assert not_above(kernel(*small), kernel(*large))
    assert not_above(kernel(*small, device=faster(**upgrade)), kernel(*small))


def test_chunks_of_a_prompt_cost_at_least_the_whole():
    whole = prefill(8192, 0, 1)
    chunks = sum(prefill(2048, start, 1) for start in range(0, 8192, 2048))
    assert whole < chunks < 1.6 * whole


def test_a_window_caps_prefill_and_decode():
    assert prefill(16384, 0, 1, window=1024) < 0.3 * prefill(16384, 0, 1)
    assert decode(64, 65536, window=1024) == decode(64, 1024)


def test_a_window_beyond_the_context_changes_nothing():
    assert prefill(1024, 512, 2, window=1e9) == pytest.approx(prefill(1024, 512, 2))


def test_long_decode_is_bound_by_kv_bytes():
    bytes_read = 64.0 * 32768 * 8 * 256 * 2.0
    share = bytes_read / DEVICE.memory_bandwidth / decode(64, 32768)
    assert 0.7 < share < 0.95


def test_eight_bit_math_gains_less_than_twice():
    # Softmax runs on exponential units that do not speed up.
    ratio = prefill(16384, 0, 4) / prefill(16384, 0, 4, math="fp8")
    assert 1.1 < ratio < 1.8


def test_groups_wider_than_the_engine_serves_are_slow():
    wide = [
        attention_decode_seconds(64, 8192, 64, 1, 128, 128, kv_bytes=2.0, widest_group=w, **KEYS) for w in (None, 32)
    ]
    assert wide[1] > 2 * wide[0]


@settings(max_examples=60, deadline=None)
@given(sizes(512), sizes(1 << 17), st.sampled_from([(32, 8), (64, 8), (128, 8), (8, 8), (16, 1)]), st.integers(1, 16))
def test_queries_of_one_sequence_cost_no_less_than_one_and_no_more_than_sequences_of_their_own(s, c, heads, n):
    def time(sequences, queries):
        return attention_decode_seconds(sequences, c, *heads, 128, 128, kv_bytes=2.0, queries=queries, **KEYS)

    assert time(s, n) <= time(s, n + 1) * (1 + 1e-12)
    assert time(s, n) <= time(s * n, 1) * (1 + 1e-12)


def test_queries_that_fit_into_one_tile_share_it():
    # 4 heads a KV head: 16 queries fill 64 rows; only their own inputs and outputs are added
    one, full, over = (
        attention_decode_seconds(64, 8192, 32, 8, 128, 128, kv_bytes=2.0, queries=n, **KEYS) for n in (1, 16, 32)
    )
    assert full < 1.05 * one < over


def test_sparse_decode_reads_only_the_selection():
    assert latent_decode(64, 131072, top_k=2048) == latent_decode(64, 2048)
    assert latent_prefill(4096, 65536, 1, top_k=2048) < latent_prefill(4096, 65536, 1)


def test_nothing_to_do_takes_no_time():
    assert prefill(0, 100, 1) == latent_prefill(0, 100, 1) == decode(0, 100) == latent_decode(0, 100) == 0.0
    assert indexer(0, 100, 1) == 0.0


def test_extreme_sizes_stay_finite():
    assert np.isfinite(prefill(1e7, 1e7, 1e5)) and np.isfinite(decode(1e6, 1e8))


def test_flash_attention_2_reads_an_unshared_head_with_one_unit_and_joins_split_heads_in_a_second_kernel():
    def one(heads, kv_heads, flash2, launch=5e-6):
        shape = (1, 65536, heads, kv_heads, 128, 128)
        return attention_decode_seconds(*shape, kv_bytes=2.0, flash2=flash2, launch=launch, **KEYS)

    # 65,536 keys of 512 bytes at the bandwidth of one unit, whatever the number of heads
    alone = 65536 * 512 / EFFICIENCY.cache.unit_bandwidth
    assert one(1, 1, True, 0.0) == pytest.approx(alone, rel=0.05)
    assert one(4, 4, True, 0.0) == pytest.approx(one(1, 1, True, 0.0), rel=0.05)
    assert one(1, 1, False) < one(1, 1, True) / 5
    assert one(4, 1, True) == pytest.approx(one(4, 1, False) + 5e-6)
