"""Context parallelism: what cp ranks compute, hold and send, by hand and by law."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import MOE, gpu, ideal_efficiency, plain_engine, replica, tiny

from planner.architecture.catalog import load_model
from planner.cost.attention import attended_pairs
from planner.serving.context import own_piece
from planner.serving.iteration import Work, iteration_ledger, iteration_seconds
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.prefill import prefill_times
from planner.serving.replica import Replica
from planner.serving.transfer import transfer

LLAMA = replica("meta-llama/Llama-3.1-8B")
LATENT = replica("deepseek-ai/DeepSeek-V3", "h200-sxm", weights="fp8")
LONG = Lengths(128_000.0, 500.0)
BANDWIDTH = 1e9


def cut(cp: int, tp: int = 1, ep: int = 1) -> Layouts:
    return Layouts.of([Layout(tp, 1, 1, ep, cp)], column=False)


def by_memory(**changes: object) -> Replica:
    """Arithmetic and links cost nothing: seconds are bytes of the memory of one GPU."""
    device = gpu(memory_bandwidth=BANDWIDTH, flops={"bf16": 1e30}, power=0.0, compute_units=1)
    return replica(tiny(**changes), device, efficiency=ideal_efficiency(), engine=plain_engine())


def test_gpus_of_a_replica_count_the_context_ranks() -> None:
    assert Layout(2, 1, 3, 1, 4).gpus == 24 and float(cut(4, 2).gpus[0]) == 8
    assert float(cut(4, 2, 8).expert_tp[0]) == 1.0  # experts lie on all ranks of a stage


def test_without_cut_contexts_nothing_changes() -> None:
    """Layouts that never heard of cp, and cp 1 beside larger ones in one column."""
    work = Work(sequences=8.0, context=3000.0, chunk=1000.0, prefix=200.0)
    ones = np.ones(1)
    for kind in (LLAMA, LATENT):
        bare = iteration_ledger(kind, Layouts(ones, ones, ones, ones), work)
        assert "context exchange" not in bare.seconds
        mixed = iteration_seconds(kind, Layouts.of([Layout(), Layout(cp=4)]), work)
        assert float(mixed[0, 0]) == pytest.approx(float(bare.total[0]), rel=1e-12)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.sampled_from([1, 2, 4, 8]))
def test_every_rank_has_the_same_share_of_the_causal_pairs(chunk: int, prefix: int, cp: int) -> None:
    query, before = own_piece(np.array(float(chunk)), np.array(float(prefix)), float(cp))
    whole = attended_pairs(float(chunk), float(prefix))
    assert float(attended_pairs(query, before)) == pytest.approx(float(whole) / cp)


def test_a_rank_reads_its_part_of_every_context_and_its_tokens_alone() -> None:
    b, context, cp = 8, 400, 4
    seconds = iteration_ledger(by_memory(), cut(cp), Work(sequences=b, context=context)).seconds
    bytes_of = {name: float(np.ravel(value)[0]) * BANDWIDTH for name, value in seconds.items()}
    own = b / cp
    # keys and values of 2 KV heads x 32 elements of a quarter of each context; queries and outputs of all requests
    assert bytes_of["attention decode"] == pytest.approx(b * (context / cp) * 2 * 32 * 2 + b * 4 * 32 * 2)
    # weights whole, activations of two of the eight tokens (test_serving_iteration.py counts the same for b)
    qkv, out = 64 * 128, 64 * 64
    assert bytes_of["attention linears"] == pytest.approx(2 * (qkv + out + own * (64 + 128) + own * (64 + 64)))
    assert bytes_of["lm head"] == pytest.approx(2 * (64 * 256 + own * (64 + 256)))


def test_messages_are_the_keys_of_a_prompt_and_the_partial_outputs_of_a_decode() -> None:
    """Links of 1 GB/s and memory that costs nothing: seconds are wire bytes of one GPU."""
    h100 = gpu("h100-sxm")
    link = replace(h100.scale_up, bandwidth=1e9, pair_bandwidth=1e9, latency=0.0, in_network_reduction=False)
    device = replace(h100, scale_up=link, memory_bandwidth=1e30, flops={"bf16": 1e30})
    kind = replica(tiny(), device, efficiency=ideal_efficiency(), engine=plain_engine())
    cp, chunk, prefix, b = 4, 800, 200, 8
    sent = iteration_ledger(kind, cut(cp), Work(chunk=chunk, prefix=prefix)).seconds["context exchange"]
    # 2 KV heads x 32 elements x 2 bytes of 1,000 tokens, three quarters of which lie elsewhere
    assert float(np.ravel(sent)[0]) * 1e9 == pytest.approx(1000 * 2 * 32 * 2 * 3 / 4, rel=1e-6)
    sent = iteration_ledger(kind, cut(cp), Work(sequences=b, context=100)).seconds["context exchange"]
    # queries of 4 heads x 16 x 2 bytes, outputs as wide with 4 bytes of log-sum-exp per head
    assert float(np.ravel(sent)[0]) * 1e9 == pytest.approx(b * 4 * (32 + 36) * 3 / 4, rel=1e-6)


@pytest.mark.parametrize("kind", [LLAMA, LATENT])
def test_a_long_prompt_takes_less_time_on_more_ranks(kind: Replica) -> None:
    tp = 8 if kind is LATENT else 1
    times = [float(np.ravel(prefill_times(kind, cut(cp, tp), LONG).own(0.0, 1.0))[0]) for cp in (1, 2, 4, 8)]
    assert all(b < a for a, b in pairwise(times))
    assert all(t > times[0] / cp for t, cp in zip(times, (1, 2, 4, 8), strict=True) if cp > 1)  # never for free


@pytest.mark.parametrize("kind", [LLAMA, LATENT])
def test_the_cache_of_a_request_is_cut_and_weights_are_not(kind: Replica) -> None:
    tp = 8 if kind is LATENT else 1
    held = [memory(kind, cut(cp, tp, ep=1), LONG) for cp in (1, 2, 4)]
    for cp, m in zip((1, 2, 4), held, strict=True):
        assert float(np.ravel(m.request)[0]) == pytest.approx(float(np.ravel(held[0].request)[0]) / cp, rel=1e-9)
        assert np.all(m.activations <= held[0].activations)
    if not kind.has_experts:
        assert held[2].weights == pytest.approx(held[0].weights)
    else:  # experts lie on all ranks
        assert held[2].weights < held[0].weights
    assert held[0].slots < held[1].slots < held[2].slots


def test_short_contexts_gain_nothing_in_decode() -> None:
    work = Work(sequences=4.0, context=200.0)
    assert iteration_seconds(LLAMA, cut(4), work) > iteration_seconds(LLAMA, cut(1), work)
    long = Work(sequences=4.0, context=200_000.0)
    assert iteration_seconds(LLAMA, cut(4), long) < iteration_seconds(LLAMA, cut(1), long)


def test_a_ring_hides_what_attention_covers() -> None:
    ring = replace(LLAMA, engine=replace(LLAMA.engine, context_exchange="ring"))
    work = Work(chunk=8192.0, prefix=100_000.0)
    gathered, passed = (iteration_ledger(kind, cut(4), work).seconds["context exchange"] for kind in (LLAMA, ring))
    assert 0 <= passed < gathered


def test_ranks_outside_a_domain_exchange_over_the_network() -> None:
    # tp 8 fills the domain of an H100 node: context ranks of one tensor rank lie on different nodes
    work = Work(chunk=8192.0, prefix=50_000.0)
    near, far = (iteration_ledger(LLAMA, cut(2, tp), work).seconds["context exchange"] for tp in (4, 8))
    assert far > 3 * near  # although half as many bytes travel


def test_tokens_on_different_ranks_meet_their_experts() -> None:
    kind = replica(tiny(ffn=MOE))
    work = Work(sequences=16.0, context=100.0)
    assert "expert dispatch" not in iteration_ledger(kind, cut(1), work).seconds
    assert iteration_ledger(kind, cut(2, ep=2), work).seconds["expert dispatch"] > 0


def test_recurrent_state_cannot_be_cut() -> None:
    problem = shape_problem(load_model("qwen/qwen3-next-80b-a3b"), Layout(cp=2))
    assert problem is not None and "recurrent" in problem.reason
    assert shape_problem(load_model("meta-llama/Llama-3.1-8B"), Layout(2, cp=8)) is None


def test_a_cut_cache_leaves_through_more_nics() -> None:
    one_side = {"size": 1e9, "inside": False}
    plain = transfer(LLAMA, LLAMA, cut(1), cut(1), **one_side).egress  # type: ignore[arg-type]
    wide = transfer(LLAMA, LLAMA, cut(4), cut(1), **one_side).egress  # type: ignore[arg-type]
    assert wide < 0.3 * plain


@pytest.mark.parametrize(("tokens", "published", "within"), [(2**20, 77.0, 0.1), (2**17, 3.8, 0.4)])
def test_published_prefills_of_a_405b_model_on_128_gpus(tokens: int, published: float, within: float) -> None:
    """arXiv 2411.01783, abstract: 16 nodes of 8 H100, tensor parallel inside a node, a ring of nodes, one pass. The
    shorter prompt comes out 30 % too fast: sixteen hops take longer than their bytes."""
    kind = replica("meta-llama/Llama-3.1-405B", weights="fp8")
    kind = replace(kind, engine=replace(kind.engine, context_exchange="ring", chunk_tokens=float(tokens)))
    seconds = prefill_times(kind, cut(16, 8), Lengths(float(tokens), 1.0)).own(0.0, 1.0)
    assert float(np.ravel(seconds)[0]) == pytest.approx(published, rel=within)
