"""Bytes per GPU, counted by hand on models of one to four layers (planner_cases lists their matrices)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import MOE, gpu, one, plain_engine, replica, tiny

from planner.architecture.model import LatentAttention
from planner.architecture.parameters import total_parameters
from planner.architecture.precision import weight_bytes
from planner.serving.layout import Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory, request_bytes_per_gpu, weight_bytes_per_gpu

LATENT = LatentAttention(heads=4, query_rank=0, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=16)


def weights(model: object, *layout: int, precision: str = "bf16") -> float:
    return float(weight_bytes_per_gpu(replica(model, weights=precision), one(*layout))[0])  # type: ignore[arg-type]


def test_one_gpu_holds_every_matrix_once() -> None:
    # attention 12,288 + feed-forward 24,576 + embedding and head 2 * 16,384, two bytes each
    assert weights(tiny()) == 2 * (12_288 + 24_576 + 32_768)


def test_tied_embeddings_are_held_once() -> None:
    assert weights(tiny(tied_embeddings=True)) == 2 * (12_288 + 24_576 + 16_384)


def test_tensor_parallelism_cuts_every_matrix() -> None:
    assert weights(tiny(), 2) == 2 * (12_288 + 24_576 + 32_768) / 2


def test_kv_projections_are_cut_no_finer_than_their_heads() -> None:
    # q and o: 8,192 / 4; k and v: 4,096 / 2 (two KV heads, copied); feed-forward and vocabulary: / 4
    assert weights(tiny(), 4) == 2 * (2_048 + 2_048 + 6_144 + 8_192)


def test_the_fullest_stage_holds_whole_layers_and_one_end_of_the_model() -> None:
    # 3 layers on 2 stages: one stage has 2 of them, and either the embedding or the head
    assert weights(tiny(3), 1, 1, 2) == 2 * (2 * 36_864 + 16_384)


def test_attention_data_parallelism_copies_attention_and_cuts_experts() -> None:
    # attention and vocabulary are copied, router 64 x 8 too; 8 experts of 6,144 weights over 2 ranks
    dense = 12_288 + 32_768 + 512
    assert weights(tiny(ffn=MOE), 1, 2, 1, 2) == 2 * (dense + 4 * 6_144)
    assert weights(tiny(ffn=MOE), 1, 2, 1, 1) == 2 * (dense + 8 * 6_144 / 2)  # ep 1: tensor-parallel experts


def test_experts_spread_over_ep_and_the_rest_of_the_ranks_share_each() -> None:
    # tp 2 x attention_dp 2 with ep 2: 4 experts per rank, each cut over 4 / 2 = 2 ranks; attention over tp 2
    assert weights(tiny(ffn=MOE), 2, 2, 1, 2) == 2 * (12_288 / 2 + 32_768 / 2 + 512 + 4 * 6_144 / 2)


def test_quantised_matrices_shrink_and_the_vocabulary_stays_wide() -> None:
    assert weights(tiny(), precision="fp8") == 12_288 + 24_576 + 2 * 32_768


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen/qwen3-30b-a3b", "deepseek-ai/deepseek-v3"])
def test_one_gpu_holds_what_the_catalog_says_the_model_weighs(name: str) -> None:
    model = replica(name).model
    held = weights(model)
    assert held == pytest.approx(sum(weight_bytes(model, "bf16").values()), rel=2e-3)  # norms are left out
    assert held == pytest.approx(2 * total_parameters(model), rel=2e-3)


@pytest.mark.parametrize(("tp", "pp", "ways"), [(1, 1, 1), (2, 1, 2), (4, 1, 2), (1, 2, 2), (2, 4, 8)])
def test_kv_cache_is_cut_by_heads_and_stages_in_whole_blocks(tp: int, pp: int, ways: int) -> None:
    # 20 tokens are 2 blocks of 16; 2 KV heads of 16 + 16 elements, 2 bytes, 4 layers
    whole = 32 * 2 * 32 * 2 * 4
    assert float(request_bytes_per_gpu(replica(tiny(4)), one(tp, 1, pp), 20)[0]) == whole / ways


def test_kv_precision_scales_the_cache() -> None:
    model = tiny(4)
    narrow = request_bytes_per_gpu(replica(model, kv="fp8"), one(1), 20)
    assert float(narrow[0]) * 2 == float(request_bytes_per_gpu(replica(model), one(1), 20)[0])


def test_a_latent_cache_is_held_whole_by_every_tensor_parallel_rank() -> None:
    # 32 latent + 8 rotary elements per token and layer
    for tp in (1, 4):
        assert float(request_bytes_per_gpu(replica(tiny(2, LATENT)), one(tp), 16)[0]) == 16 * 40 * 2 * 2


def test_a_window_bounds_what_a_request_holds() -> None:
    from dataclasses import replace

    from planner_cases import ATTENTION

    windowed = tiny(1, replace(ATTENTION, window=64))
    held = [float(request_bytes_per_gpu(replica(windowed), one(1), n)[0]) for n in (64, 6400)]
    assert held[0] == held[1] == 64 * 64 * 2


def budget(room: float, request_tokens: int = 32, **engine: object) -> tuple[float, float, float]:
    """Return slots, room and request bytes on a GPU with ``room`` bytes left beside weights and activations."""
    kind = replica(tiny(4), engine=plain_engine(**engine))
    empty = memory(kind, one(1), Lengths(request_tokens - 10, 10))
    taken = float(empty.weights[0] + empty.activations[0])
    full = memory(kind.on(gpu(memory=taken + room), kind.efficiency), one(1), Lengths(request_tokens - 10, 10))
    return float(full.slots[0]), float(full.room[0]), float(full.request[0])


def test_slots_are_the_requests_that_fit_into_the_room() -> None:
    request = 32 * 64 * 2 * 4  # 32 tokens, 64 elements of 2 bytes, 4 layers
    assert budget(3.9 * request) == (3, pytest.approx(3.9 * request), request)
    assert budget(3.0 * request + 1e-3)[0] == 3
    assert budget(0.99 * request)[0] == 0
    assert budget(-5.0 * request)[0] == 0


def test_an_engine_runs_no_more_sequences_than_it_is_set_to() -> None:
    assert budget(1e9, max_sequences=7.0)[0] == 7


def test_utilisation_counts_the_whole_memory_or_what_weights_leave() -> None:
    model, lengths = tiny(4), Lengths(22, 10)
    share = memory(replica(model, engine=plain_engine(utilization=0.9)), one(1), lengths)
    free = memory(replica(model, engine=plain_engine(utilization=0.9, of_free=True)), one(1), lengths)
    fixed = float(share.weights[0] + share.activations[0])
    assert float(share.room[0]) == pytest.approx(0.9 * share.capacity - fixed)
    assert float(free.room[0]) == pytest.approx(0.9 * (share.capacity - fixed))


def test_a_request_reserves_its_whole_length_unless_blocks_are_taken_as_it_grows() -> None:
    model, lengths = tiny(4), Lengths(1600, 3200)
    reserved = memory(replica(model, engine=plain_engine()), one(1), lengths)
    growing = memory(replica(model, engine=plain_engine(grows=True)), one(1), lengths)
    together = memory(replica(model, engine=plain_engine(grows=True)), one(1), lengths, together=True)
    assert float(reserved.request[0]) == float(together.request[0]) == 4800 * 64 * 2 * 4  # 1600 + 3200
    assert float(growing.request[0]) == 3200 * 64 * 2 * 4  # 1600 + 3200/2, the mean over its life


def test_what_fits_holds_one_request_at_its_full_length_even_where_blocks_are_taken_on_demand() -> None:
    kind = replica(tiny(4), engine=plain_engine(grows=True))
    lengths = Lengths(16, 3200)
    full = 3216 * 64 * 2 * 4
    empty = memory(kind, one(1), lengths)
    taken = float(empty.weights[0] + empty.activations[0])
    small = memory(kind.on(gpu(memory=taken + 0.8 * full), kind.efficiency), one(1), lengths)
    assert not small.fits[0]
    large = memory(kind.on(gpu(memory=taken + 1.01 * full), kind.efficiency), one(1), lengths)
    assert large.fits[0]


@given(
    tp=st.sampled_from([1, 2, 4, 8]), pp=st.integers(1, 8), data=st.sampled_from([1, 2, 4]), isl=st.integers(1, 100_000)
)
def test_more_ranks_never_hold_more_per_gpu(tp: int, pp: int, data: int, isl: int) -> None:
    kind, lengths = replica("qwen/qwen3-30b-a3b"), Lengths(isl, 500)
    own = memory(kind, one(tp, data, pp, tp * data), lengths)
    for wider in (Layout(2 * tp, data, pp, 2 * tp * data), Layout(tp, data, pp + 1, tp * data)):
        split = memory(kind, Layouts.of([wider], column=False), lengths)
        assert float(split.weights[0]) <= float(own.weights[0])
        assert float(split.request[0]) <= float(own.request[0])


def test_many_layouts_at_once_give_what_each_gives_alone() -> None:
    kind, lengths = replica("deepseek-ai/deepseek-v3", weights="fp8"), Lengths(4000, 1000)
    several = [Layout(1, 8, 1, 8), Layout(8, 1, 2, 1), Layout(4, 4, 1, 16), Layout(16, 1, 4, 16)]
    table = memory(kind, Layouts.of(several), lengths)
    for row, layout in enumerate(several):
        alone = memory(kind, Layouts.of([layout], column=False), lengths)
        for name in ("weights", "room", "request", "slots"):
            joint = np.broadcast_to(getattr(table, name), (4, 1))[row, 0]
            assert joint == pytest.approx(float(getattr(alone, name)[0]), rel=1e-12), (name, layout)
