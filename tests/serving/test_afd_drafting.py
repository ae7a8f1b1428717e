"""Speculative decoding between attention and feed-forward workers: laws, the event loop it stands for, memory."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.api import Catalogs, estimate
from planner.architecture.catalog import load_model
from planner.job.points import parse_points
from planner.job.speculating import Speculating
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.drafting import Drafting
from planner.serving.estimated import Estimate
from planner.serving.halves import attention_half, ffn_half
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.serving.ping_pong import Stages
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS

CATALOGS = Catalogs()
R1 = CATALOGS.replica("deepseek-ai/DeepSeek-R1", "h200-sxm", "fp8", "bf16", "vllm")
QWEN = CATALOGS.replica("qwen3-235b-a22b", "h200-sxm", "fp8", "bf16", "vllm")
SMALL = load_model("qwen/qwen3-0.6b")
SIZES = Lengths(4096.0, 512.0)
METHODS = ("mtp", "eagle", "ngram", "draft")
methods = st.sampled_from(METHODS)
lengths = st.sampled_from(LENGTHS)


def drafted(target: Replica, method: str, tokens: int, rate: float) -> Replica:
    model = SMALL if method == "draft" else None
    asked = Speculating(method=method, model=model.id if model else None, acceptance=(rate,))  # type: ignore[arg-type]
    return replace(target, speculation=Drafting(asked, model).speculation(target, tokens))


def split(method: str | None = None, tokens: int = 1, rate: float = 0.7, target: Replica = R1) -> AttentionFfn:
    side = target if method is None else drafted(target, method, tokens, rate)
    return AttentionFfn(side, side)


def workers(m: int = 3, *, attention: int = 2, ffn: int = 2) -> Workers:
    return Workers.one(Layout(1, 8), Layout(8, ep=8), (attention, ffn), m)


def per_token(both: AttentionFfn, requests: float, m: int = 3) -> float:
    return float(both.token_seconds(workers(m), np.array([requests]), SIZES)[0])


@settings(max_examples=25, deadline=None)
@given(method=methods, tokens=lengths, requests=st.floats(1, 6000), m=st.integers(1, 4))
def test_drafts_that_are_never_accepted_only_cost(method: str, tokens: int, requests: float, m: int) -> None:
    assert per_token(split(method, tokens, 0.0), requests, m) >= per_token(split(), requests, m)


@settings(max_examples=20, deadline=None)
@given(method=methods, tokens=lengths, rate=st.floats(0, 0.9), more=st.floats(0, 0.1), requests=st.floats(1, 6000))
def test_more_acceptance_is_never_slower(method: str, tokens: int, rate: float, more: float, requests: float) -> None:
    low, high = (per_token(split(method, tokens, a), requests) for a in (rate, rate + more))
    assert high <= low * (1 + 1e-9)


def test_verification_sends_every_checked_token_and_reads_each_cache_once() -> None:
    requests, k = np.array([3072.0]), 3
    wide = split("ngram", k, target=QWEN).stages(workers(), requests, SIZES)
    plain, many = (split(target=QWEN).stages(workers(), n * requests, SIZES) for n in (1, 1 + k))
    assert wide.ffn == pytest.approx(many.ffn)
    assert wide.dispatch == pytest.approx(many.dispatch) and wide.combine == pytest.approx(many.combine)
    assert plain.attention < wide.attention < many.attention
    # 94 layers of 4 keys and values of 128 in bf16, over a mean context of 4,352, for 64 requests of a rank
    read = 64 * 94 * 2 * 4 * 128 * 2 * SIZES.decode_context / QWEN.accelerator.memory_bandwidth
    assert float((many.attention - wide.attention)[0]) >= 0.9 * k * float(read)


def test_a_prediction_layer_is_one_more_layer_on_both_sides() -> None:
    """One pass over one checked token and its draft costs what a model of that layer alone would."""
    model = replace(R1.model, layers=R1.model.mtp_layers[:1], mtp_layers=())
    alone = replace(R1, model=model)
    requests = np.array([3072.0])
    (draft,) = split("mtp", 1).stages(workers(), requests, SIZES).drafts
    layer = AttentionFfn(alone, alone).stages(workers(), 2 * requests, SIZES)
    assert draft.layers == 1
    assert draft.ffn == pytest.approx(layer.ffn) and draft.dispatch == pytest.approx(layer.dispatch)
    assert draft.attention < layer.attention  # one read of the cache for both tokens
    first, later = split("mtp", 3).stages(workers(), requests, SIZES).drafts
    assert later.layers == 2 and later.ffn / 2 < first.ffn and later.dispatch / 2 < first.dispatch


@pytest.mark.parametrize("method", ["eagle", "draft"])
def test_other_drafts_keep_to_the_attention_workers(method: str) -> None:
    stages = split(method, 2).stages(workers(), np.array([3072.0]), SIZES)
    assert all(float(d.ffn[0]) == float(d.slowest[0] - d.attention[0]) == 0 < d.attention[0] for d in stages.drafts)
    assert split("ngram", 2).stages(workers(), np.array([3072.0]), SIZES).drafts == ()


def test_a_draft_is_held_where_it_runs() -> None:
    def held(method: str | None) -> tuple[float, float, float]:
        attention, ffn = split(method, 2).memories(workers(), SIZES)
        return float(attention.weights[0]), float(np.ravel(attention.request)[0]), float(ffn.weights[0])

    plain, mtp, eagle = held(None), held("mtp"), held("eagle")
    layers = len(R1.model.layers)
    assert mtp[1] / plain[1] == pytest.approx((layers + 1) / layers)
    # The published layer has 11.5e9 weights: 256 experts of 44 M over 16 GPUs, attention of 187 M and a fold of 103 M.
    assert 0.65e9 < mtp[2] - plain[2] < 0.8e9
    assert 0.3e9 < mtp[0] - plain[0] < 0.5e9
    assert eagle[2] == plain[2] and eagle[0] > plain[0] + 0.5e9
    assert held("ngram") == plain
    few = replace(R1, engine=replace(R1.engine, max_sequences=256.0))
    sets = [float(np.ravel(split(how, 2, target=few).held(workers(), SIZES).activations)[0]) for how in (None, "ngram")]
    assert sets[1] > sets[0]  # three tokens of a request are in work at once
    both = drafted(R1, "mtp", 2, 0.8)
    assert not attention_half(both).speculation.draft.has_experts  # type: ignore[union-attr]
    assert all(layer.mixer is None for layer in ffn_half(both).speculation.draft.model.layers)  # type: ignore[union-attr]


def test_both_sides_draft_alike() -> None:
    with pytest.raises(ValueError, match="same draft"):
        AttentionFfn(drafted(R1, "mtp", 2, 0.8), drafted(R1, "mtp", 1, 0.8))


def test_without_network_drafting_approaches_the_slower_side() -> None:
    """Free links and no host work: an iteration is the longer side of the layers and of every pass, m times."""
    link = replace(R1.accelerator.scale_up, bandwidth=1e18, latency=0.0)
    chip = replace(R1.accelerator, network_bandwidth=1e18, scale_up=link)
    target = replace(R1.on(chip, R1.efficiency), engine=replace(R1.engine, step=0.0, sequence=0.0, draft_step=0.0))
    both, layout, requests = split("mtp", 3, 1.0, target), workers(3), np.array([6144.0])
    stages = both.stages(layout, requests, SIZES)
    sides = [float(np.maximum(s.attention, s.ffn)[0]) for s in (stages, *stages.drafts)]
    assert float(both.token_seconds(layout, requests, SIZES)[0]) == pytest.approx(3 * sum(sides) / 4, rel=0.01)
    # With every draft accepted, 4 tokens come of a step that reads weights and caches once.
    assert 4 * per_token(both, 64.0) < 2 * per_token(split(target=target), 64.0)


def played(stages: Stages, m: int) -> float:
    """One iteration as events: each micro-batch takes the next free moment of what it needs next, first come first."""
    passes = [(stages, 0.0), *((d, float(d.host[0]) / d.layers) for d in stages.drafts)]
    way = []
    for part, host in passes:
        parts = (part.attention, part.dispatch, part.ffn, part.combine)
        layer = [("host", host), *zip("anfb", (float(x[0]) / part.layers for x in parts), strict=True)]
        way += layer * int(part.layers)
    free: dict[str, float] = {}
    moments, end = [(0.0, i, 0) for i in range(m)], 0.0
    while moments:
        now, i, at = heapq.heappop(moments)
        if at == len(way):
            end = max(end, now)
            continue
        where, seconds = way[at]
        free[where] = max(now, free.get(where, 0.0)) + seconds
        heapq.heappush(moments, (free[where], i, at + 1))
    return end


share = st.floats(0.3, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 4), layer=st.tuples(share, st.floats(0.05, 0.6), share, st.floats(0.05, 0.6)), tokens=lengths,
    wider=st.floats(0.8, 2.5), host=st.floats(0, 1), routed=st.booleans(),
)  # fmt: skip
def test_the_closed_form_is_that_of_the_ping_pong(
    m: int, layer: tuple[float, ...], tokens: int, wider: float, host: float, routed: bool
) -> None:
    """Within 2 % without drafts, 3 % with them, which is the fill of two kinds of layers in a row."""
    t_a, t_d, t_f, t_c = (np.array([61 * x]) for x in layer)
    none = np.zeros(1)
    plain = Stages(t_a, t_d, t_f, t_c, none, 61.0)
    assert float(plain.iteration(np.array([float(m)]))[0]) == pytest.approx(played(plain, m), rel=0.02)
    halves = (t_d, t_f, t_c) if routed else (none, none, none)
    parts = [np.asarray(x) / 61 for x in (t_a * wider, *halves)]
    one_pass = Stages(*parts, np.array([host]), 1.0)
    drafting = replace(plain, drafts=(one_pass, one_pass.times(tokens - 1.0)) if tokens > 1 else (one_pass,))
    assert float(drafting.iteration(np.array([float(m)]))[0]) == pytest.approx(played(drafting, m), rel=0.03)


def rows(*drafts: str, concurrency: int = 256, model: str = "deepseek-ai/DeepSeek-R1") -> list[Estimate]:
    header = (
        "id,model,gpu,weights,kv,mode,isl,osl,concurrency,attention_workers,attention_tp,attention_attention_dp,"
        "ffn_workers,ffn_tp,ffn_ep,micro_batches,speculate,acceptance,draft_tokens"
    )
    first = f"{model},h200-sxm,fp8,bf16,af,4096,512,{concurrency},2,1,8,2,8,8,3"
    return estimate(list(parse_points([header, *(f"{i},{first},{d}" for i, d in enumerate(drafts))], "points.csv")))


def test_no_draft_is_the_plain_split_exactly() -> None:
    plain, never, asked = rows(",,", "mtp,0.8,0", "mtp,0.8,2")
    assert replace(never, id=plain.id) == plain
    both = split("mtp", 2, 0.8)
    assert asked.tpot == pytest.approx(per_token(both, 256.0))
    assert asked.output_rate_per_gpu == pytest.approx(256 / per_token(both, 256.0) / 32)


def test_a_row_without_a_length_takes_the_best_one_and_none_under_load() -> None:
    best, *others = rows("mtp,0.7,", *(f"mtp,0.7,{n}" for n in (0, *LENGTHS)))
    assert best.output_rate_per_gpu == max(e.output_rate_per_gpu or 0 for e in others)
    assert best.tpot is not None and best.tpot < (others[0].tpot or 0)
    # Little accepted and every pool full: checking costs more than it gains.
    loaded, plain = rows("ngram,0.05,", ",,", concurrency=12288)
    assert loaded.tpot == plain.tpot


@pytest.mark.parametrize("method", METHODS)
def test_a_table_of_many_splits_is_that_of_each_one(method: str) -> None:
    """Rows that ask the same share their operators; with drafts the passes differ in what they ask."""
    both = split(method, 3)
    rows = [(1, 8, 1, 1, 8, 8, 2), (2, 1, 8, 3, 8, 8, 3), (2, 8, 1, 3, 8, 8, 4), (1, 4, 2, 2, 8, 8, 3)]
    table = Workers(*np.array(rows, dtype=float).T)
    batches = np.geomspace(1, 512, 7)[None, :]
    column = table.column()
    many = both.token_seconds(column, batches * column.ranks, SIZES.column(len(rows)))
    for i in range(len(rows)):
        one = table.rows([i])
        alone = both.token_seconds(one, batches[0] * one.ranks, SIZES)
        assert many[i] == pytest.approx(alone, rel=1e-9)
