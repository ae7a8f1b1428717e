"""Seconds of one engine iteration: operators of every layer, messages between ranks, gaps, host.

This is the narrow waist of the project: search, estimate and simulation all take their times from
``iteration_seconds``. Everything broadcasts: one point or a million.

A pass (forward.py) collects what its operators cost: products.py, mixers.py, routed.py and exchanges.py each book
theirs; here is the order in which a layer, an iteration and its drafts run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.architecture.linears import ffn_linears, mixer_linears
from planner.architecture.model import Attention, Layer, MoeFfn
from planner.cost.gemm import gemm_seconds
from planner.serving.context import ACTIVATION_BYTES
from planner.serving.exchanges import add_all_reduce, add_hops
from planner.serving.forward import IN_GRAPH_LAUNCH, Pass
from planner.serving.layout import Array, Layouts, floats
from planner.serving.mixers import add_mixer
from planner.serving.overlap import half_of, hide_all_reduces, two_batches
from planner.serving.products import add_head, add_linears, add_norms
from planner.serving.replica import Replica
from planner.serving.routed import add_expert_exchange, add_experts
from planner.serving.speculation import Speculation
from planner.serving.stages import staged_ledger
from planner.serving.work import Ledger, Work

__all__ = [
    "ACTIVATION_BYTES", "IN_GRAPH_LAUNCH", "Ledger", "Work", "draft_layouts", "fold_seconds", "iteration_ledger",
    "iteration_seconds",
]  # fmt: skip


def iteration_seconds(replica: Replica, layouts: Layouts, work: Work) -> Array:
    """Time of one iteration of the whole replica, in seconds; shape is the broadcast of layouts and work.

    Pipeline stages are traversed one after the other, so this is the time a token needs for all stages;
    with ``pp`` micro-batches in flight a new one leaves every ``1/pp`` of it.
    """
    return iteration_ledger(replica, layouts, work).total


def iteration_ledger(replica: Replica, layouts: Layouts, work: Work) -> Ledger:
    """The same as ``iteration_seconds``, kept apart by operator.

    A replica that speculates drafts first and then checks the draft: its iteration yields ``replica.tokens_per_step``
    tokens per request.
    """
    if replica.stages:
        return staged_ledger(replica, work, _one_pass)
    speculation = replica.speculation
    if speculation is None:
        return _one_pass(replica, layouts, work)
    ledger = _one_pass(replica, layouts, replace(work, drafted=float(speculation.tokens)))
    ledger.add("draft", _draft_seconds(replica, speculation, layouts, work))
    return ledger


def _draft_seconds(replica: Replica, speculation: Speculation, layouts: Layouts, work: Work) -> Array:
    """Seconds of all drafting passes of an iteration.

    The first pass reads what the target has just checked, and the prompt, so that the draft's own cache keeps up, and
    guesses on from the last accepted token; each further one takes the token of the one before.
    """
    draft = speculation.draft
    if draft is None:
        return np.asarray(replica.engine.draft_step)
    split = draft_layouts(speculation, layouts)
    caught_up = replace(work, drafted=float(speculation.tokens), one_sample=True)
    seconds = _one_pass(draft, split, caught_up).total + fold_seconds(replica, speculation.joined, split, caught_up)
    if speculation.tokens > 1:
        later = Work(work.sequences, work.context)
        joined = speculation.joined if speculation.rejoined is None else speculation.rejoined
        each = _one_pass(draft, split, later).total + fold_seconds(replica, joined, split, later)
        seconds = seconds + np.where(floats(work.sequences) > 0, (speculation.tokens - 1) * each, 0.0)
    return seconds


def fold_seconds(replica: Replica, joined: int, layouts: Layouts, work: Work) -> Array:
    """Seconds of the product that folds ``joined`` hidden states into the input of a draft layer."""
    if not joined:
        return np.zeros(1)
    hidden = replica.model.hidden
    tokens = floats(work.sequences) * (1.0 + work.drafted) + floats(work.chunk)
    seconds = gemm_seconds(
        tokens, hidden / layouts.tp, joined * hidden, math="bf16",
        accelerator=replica.accelerator, efficiency=replica.efficiency, launch=IN_GRAPH_LAUNCH,
    )  # fmt: skip
    return np.asarray(seconds * replica.engine.dense_slowdown)


def _one_pass(replica: Replica, layouts: Layouts, work: Work) -> Ledger:
    """One forward pass, in two overlapping halves where the engine does so and it is faster.

    Engines overlap only where experts lie over all ranks. A captured graph that stops for every exchange runs nothing
    beside it, so without exchanges in it only iterations with prompts, which no graph holds, overlap.
    """
    plain = _single_pass(replica, layouts, work)
    if not replica.engine.two_batch_overlap or "expert dispatch" not in plain.seconds:
        return plain
    can = layouts.send_to_experts & (replica.engine.exchange_in_graph | (floats(work.chunk) > 0))
    return two_batches(plain, _single_pass(replica, layouts, half_of(work)), len(replica.model.layers), can=can)


def _single_pass(replica: Replica, layouts: Layouts, work: Work) -> Ledger:
    p = Pass(replica, layouts, work)
    for group in replica.groups:
        _layer(p, group.layer, float(group.count))
    if replica.samples:
        add_head(p)
    add_hops(p)
    hide_all_reduces(p.ledger, replica.engine.communication_overlap)
    _overheads(p)
    return p.ledger


def _layer(p: Pass, layer: Layer, count: float) -> None:
    times = count * p.unevenness
    if layer.mixer is not None:
        kv_heads = layer.mixer.kv_heads if isinstance(layer.mixer, Attention) else 1
        add_linears(p, mixer_linears(layer.mixer, p.hidden), "attention linears", times, kv_heads)
        add_mixer(p, layer, times)
        add_all_reduce(p, times)
    if layer.ffn is not None:
        add_linears(p, ffn_linears(layer.ffn, p.hidden), "ffn", times, quantised=p.quantised)
        if isinstance(layer.ffn, MoeFfn):
            add_experts(p, layer.ffn, times)
            add_expert_exchange(p, layer.ffn, times)
        else:
            add_all_reduce(p, times)
    add_norms(p, layer, times)
    p.ledger.add("kernel gaps", np.asarray(p.replica.layer_gap(layer)), times)


def _overheads(p: Pass) -> None:
    """Host time: scheduling, sampling and detokenising, per iteration and per sequence (e2e_learnings,
    section 3); and what an iteration with prompts costs beyond its kernels, since no captured graph fits it.
    """
    engine = p.replica.engine
    if p.prefilling:
        extra = (engine.chunk_slowdown - 1.0) * p.ledger.total
        p.ledger.add("ragged chunks", np.where(p.chunk > 0, extra, 0.0))
    p.ledger.add("host", engine.step + engine.sequence * p.decodes)


def draft_layouts(speculation: Speculation, layouts: Layouts) -> Layouts:
    """How a draft is cut: as the attention of its target, in one stage; its experts as those of the target."""
    ones = np.ones_like(layouts.tp)
    routed = speculation.draft is not None and speculation.draft.has_experts
    return Layouts(layouts.tp, layouts.attention_dp, ones, layouts.ep if routed else ones, layouts.cp)
