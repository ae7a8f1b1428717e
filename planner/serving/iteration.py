"""Seconds of one engine iteration: operators of every layer, messages between ranks, gaps, host.

This is the narrow waist of the project: search, estimate and simulation all take their times from
``iteration_seconds``. Everything broadcasts: one point or a million.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from planner.architecture.linears import expert_linears, ffn_linears, mixer_linears
from planner.architecture.model import (
    Attention,
    LatentAttention,
    Layer,
    Linear,
    LinearAttention,
    Mamba,
    MoeFfn,
    Part,
    Shard,
)
from planner.architecture.precision import WeightFormat
from planner.architecture.state import attended_tokens
from planner.cost.attention import (
    attention_decode_seconds,
    attention_prefill_seconds,
    indexer_seconds,
    latent_decode_seconds,
    latent_prefill_seconds,
)
from planner.cost.collective import (
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    point_to_point_seconds,
)
from planner.cost.elementwise import elementwise_seconds, recurrent_seconds
from planner.cost.gemm import gemm_seconds
from planner.cost.moe import active_experts, experts_seconds
from planner.serving.context import ACTIVATION_BYTES, gather_seconds, merge_seconds, own_piece, own_tokens
from planner.serving.expert_load import rank_load
from planner.serving.layout import Array, Layouts, floats
from planner.serving.overlap import half_of, hide_all_reduces, two_batches
from planner.serving.replica import Replica
from planner.serving.speculation import Speculation
from planner.serving.stages import staged_ledger
from planner.serving.work import Ledger, Work

__all__ = ["ACTIVATION_BYTES", "Ledger", "Work", "draft_layouts", "iteration_ledger", "iteration_seconds"]

# Inside a captured graph a kernel starts without the host; what is left between kernels is the engine's layer gap.
IN_GRAPH_LAUNCH = 0.0
_BY_BLOCK = "fp8_block"


_SLOWDOWN = {
    "attention linears": "dense_slowdown",
    "ffn": "dense_slowdown",
    "lm head": "dense_slowdown",
    "norms": "dense_slowdown",
    "attention decode": "attention_slowdown",
    "attention prefill": "attention_slowdown",
    "sparse indexer": "attention_slowdown",
    "recurrent state": "attention_slowdown",
    "experts": "expert_slowdown",
    "all-reduce": "collective_slowdown",
    "expert dispatch": "collective_slowdown",
    "pipeline": "collective_slowdown",
    "context exchange": "collective_slowdown",
}
"""Which factor of the engine applies to which operator."""


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

    The first pass reads what the target has just checked, and the prompt, so that the draft's own cache keeps up; each
    further one takes the token of the one before.
    """
    draft = speculation.draft
    if draft is None:
        return np.asarray(replica.engine.draft_step)
    split = draft_layouts(speculation, layouts)
    first = _one_pass(draft, split, replace(work, drafted=float(speculation.tokens)))
    seconds = first.total + _fold_seconds(replica, speculation, split, work)
    if speculation.tokens > 1:
        later = Work(work.sequences, work.context)
        each = _one_pass(draft, split, later).total + _fold_seconds(replica, speculation, split, later)
        seconds = seconds + np.where(floats(work.sequences) > 0, (speculation.tokens - 1) * each, 0.0)
    return seconds


def _fold_seconds(replica: Replica, speculation: Speculation, layouts: Layouts, work: Work) -> Array:
    """Seconds of the product that folds several hidden states into the input of a draft layer."""
    if not speculation.joined:
        return np.zeros(1)
    hidden = replica.model.hidden
    seconds = gemm_seconds(
        floats(work.sequences) + floats(work.chunk), hidden / layouts.tp, speculation.joined * hidden, math="bf16",
        accelerator=replica.accelerator, efficiency=replica.efficiency, launch=IN_GRAPH_LAUNCH,
    )  # fmt: skip
    return np.asarray(seconds * replica.engine.dense_slowdown)


def _one_pass(replica: Replica, layouts: Layouts, work: Work) -> Ledger:
    """One forward pass, in two overlapping halves where the engine does so and it is faster."""
    plain = _single_pass(replica, layouts, work)
    if not replica.engine.two_batch_overlap or "expert dispatch" not in plain.seconds:
        return plain
    return two_batches(plain, _single_pass(replica, layouts, half_of(work)), len(replica.model.layers))


def _single_pass(replica: Replica, layouts: Layouts, work: Work) -> Ledger:
    pass_ = _Pass(replica, layouts, work)
    for group in replica.groups:
        pass_.layer(group.layer, float(group.count))
    if replica.samples:
        pass_.head()
    pass_.between_stages()
    hide_all_reduces(pass_.ledger, replica.engine.communication_overlap)
    pass_.overheads()
    return pass_.ledger


def draft_layouts(speculation: Speculation, layouts: Layouts) -> Layouts:
    """How a draft is cut: as the attention of its target, in one stage; its experts as those of the target."""
    ones = np.ones_like(layouts.tp)
    routed = speculation.draft is not None and speculation.draft.has_experts
    return Layouts(layouts.tp, layouts.attention_dp, ones, layouts.ep if routed else ones, layouts.cp)


class _Pass:
    """One evaluation: the arrays that every operator needs, and the ledger they write to."""

    def __init__(self, replica: Replica, layouts: Layouts, work: Work) -> None:
        self.replica, self.layouts, self.ledger = replica, layouts, Ledger()
        self.decodes = floats(work.sequences)
        self.width = 1.0 + work.drafted
        self.decoded = self.decodes * self.width
        self.context = floats(work.context)
        self.chunk = floats(work.chunk)
        self.prefix = floats(work.prefix)
        self.prompts = floats(work.prompts)
        self.quantised = work.quantised
        ranks = layouts.attention_dp
        carrying = np.where(floats(work.prefilling) > 0, np.minimum(floats(work.prefilling), ranks), ranks)
        self.routed_tokens = self.decoded * ranks + self.chunk * carrying
        self.prefilling = bool(np.any(self.chunk > 0))
        self.decoding = bool(np.any(self.decodes > 0))
        self.cp: Array | float = layouts.cp if layouts.long else 1.0
        self.tokens = own_tokens(self.decoded + self.chunk, self.cp) if layouts.long else self.decoded + self.chunk
        self.hidden = replica.model.hidden
        layers = len(replica.model.layers)
        # Layers are whole: the fullest stage sets the pace of all.
        self.unevenness = np.ceil(layers / layouts.pp) * layouts.pp / layers
        self.common: dict[str, Any] = {
            "accelerator": replica.accelerator,
            "efficiency": replica.efficiency,
            "launch": IN_GRAPH_LAUNCH,
        }

    def layer(self, layer: Layer, count: float) -> None:
        times = count * self.unevenness
        if layer.mixer is not None:
            kv_heads = layer.mixer.kv_heads if isinstance(layer.mixer, Attention) else 1
            self._linears(mixer_linears(layer.mixer, self.hidden), "attention linears", times, kv_heads)
            self._mixer(layer, times)
            self._after_mixer(times)
        if layer.ffn is not None:
            self._linears(ffn_linears(layer.ffn, self.hidden), "ffn", times, quantised=self.quantised)
            if isinstance(layer.ffn, MoeFfn):
                self._experts(layer.ffn, times)
                self._after_experts(layer.ffn, times)
            else:
                self._all_reduce(times)
        self._norms(layer, times)
        self.ledger.add("kernel gaps", np.asarray(self.replica.layer_gap(layer)), times)

    def head(self) -> None:
        """LM head on the tokens that are sampled: every decode, and one per finished prompt."""
        sampled = self.decoded + np.where(self.chunk > 0, self.prompts, 0.0)
        form = self.replica.formats[Part.HEAD]
        sampled = own_tokens(sampled, self.cp) if self.layouts.long else sampled
        vocab = self.replica.model.vocab / self.layouts.tp
        seconds = gemm_seconds(
            sampled, vocab, self.hidden, math=form.math, weight_bytes=form.bytes_per_weight, **self.common
        )
        self._add("lm head", seconds)

    def between_stages(self) -> None:
        """Hidden states hop from stage to stage (tokens are cut over the tp ranks that send in parallel)."""
        hops = self.layouts.pp - 1
        if not np.any(hops):
            return
        message = self.tokens * self.hidden * ACTIVATION_BYTES / self.layouts.tp
        links: dict[str, Any] = {"topology": self.replica.topology, "efficiency": self.replica.efficiency}
        seconds = np.where(
            self.layouts.gpus > self.replica.topology.domain_size,
            point_to_point_seconds(message, across=True, **links),
            point_to_point_seconds(message, across=False, **links),
        )
        self._add("pipeline", seconds, hops)

    def overheads(self) -> None:
        """Host time: scheduling, sampling and detokenising, per iteration and per sequence (e2e_learnings,
        section 3); and what an iteration with prompts costs beyond its kernels, since no captured graph fits it.
        """
        engine = self.replica.engine
        if self.prefilling:
            extra = (engine.chunk_slowdown - 1.0) * self.ledger.total
            self.ledger.add("ragged chunks", np.where(self.chunk > 0, extra, 0.0))
        self.ledger.add("host", engine.step + engine.sequence * self.decodes)

    def _add(self, name: str, seconds: Array, times: float | Array = 1.0, *, moved: float | Array = 0.0) -> None:
        """Book the time of a kernel as it runs inside the engine, which cannot beat the memory that it reads from.

        ``moved`` bytes at datasheet bandwidth are the floor of kernels that engines run faster than the benchmark did.
        """
        factor = getattr(self.replica.engine, _SLOWDOWN[name])
        floor = moved / self.replica.accelerator.memory_bandwidth
        self.ledger.add(name, np.maximum(seconds * factor, floor), times)

    def _linears(
        self, linears: tuple[Linear, ...], name: str, times: Array, kv_heads: int = 1, *, quantised: bool = False
    ) -> None:
        for inputs, outputs, part, copies in _fused(linears, self.layouts, kv_heads):
            form = self.replica.formats[part]
            arrives = quantised and np.all(inputs == float(self.hidden))
            seconds = gemm_seconds(
                self.tokens,
                outputs,
                inputs,
                math=form.math,
                weight_bytes=form.bytes_per_weight,
                quantise_activations=form.math == _BY_BLOCK and not arrives,
                **self.common,
            )
            self._add(name, seconds, times * copies)
            self._quantised(form, times)

    def _quantised(self, form: WeightFormat, times: Array) -> None:
        """The kernel that brings the input of a product to block-scaled 8 bits (one scale for 128 elements of a token).

        It starts on its own: 1.4 to 2.4 us in a captured graph on an H200 (benchmarks/data/kernels_h200.csv), plus
        what the next one waits. Per-tensor and 4-bit scales are fused into the norm or activation before; what routed
        experts quantise is in the measured times of their operator.
        """
        if form.math == _BY_BLOCK:
            self.ledger.add("kernel gaps", np.asarray(self.replica.engine.quantise_gap), times)

    def _mixer(self, layer: Layer, times: Array) -> None:
        match layer.mixer:
            case Attention():
                self._attention(layer.mixer, times)
            case LatentAttention():
                self._latent(layer.mixer, times)
            case LinearAttention() | Mamba():
                self._recurrent(layer.mixer, times)

    def _attention(self, a: Attention, times: Array) -> None:
        if a.window == 0:
            return  # cross-attention to images: not part of text serving
        heads = np.ceil(a.heads / self.layouts.tp)
        kv_heads = np.maximum(1.0, a.kv_heads / self.layouts.tp)
        shape = (heads, kv_heads, float(a.head_dim), float(a.value_dim))
        options: dict[str, Any] = {"kv_bytes": self.replica.kv_bytes, **self.common}
        if self.decoding:
            read = attended_tokens(a, self.context)
            read = read / self.cp
            sequences, queries = self._checking(a)
            seconds = attention_decode_seconds(sequences, read, heads * queries, *shape[1:], **options)
            self._merge(times, heads, a.head_dim, a.value_dim)
            cache = sequences * read * kv_heads * ((a.head_dim + a.value_dim) * self.replica.kv_bytes)
            self._add("attention decode", seconds, times, moved=cache)
        if self.prefilling:
            query, prefix = own_piece(self.chunk / self.prompts, self.prefix, self.cp)
            seconds = attention_prefill_seconds(
                query, prefix, self.prompts, *shape, math=self._prefill_math(), window=self._prefill_window(a),
                **options,
            )  # fmt: skip
            self._add("attention prefill", seconds, times)
            self._gather(times, kv_heads * (a.head_dim + a.value_dim) * self.replica.kv_bytes, seconds, a.window)
        if a.indexer is not None and not a.indexer.shared:
            self._indexer(a.indexer.heads, a.indexer.head_dim, 1.0, times)
        if a.compressed is not None and a.compressed.index_dim:
            self._indexer(a.compressed.index_heads, a.compressed.index_dim, a.compressed.ratio, times)

    def _prefill_math(self) -> str:
        """Math of a prompt's attention: 8 bit where the engine computes in the type of an 8-bit cache."""
        narrow = self.replica.engine.cache_math and self.replica.kv_bytes < ACTIVATION_BYTES
        return "fp8" if narrow else "bf16"

    def _checking(self, a: Attention | LatentAttention) -> tuple[Array, float]:
        """Sequences and queries of each that the decode kernel sees: the tokens of a draft share one read of the cache,
        but not where every query chooses its own part of it."""
        chooses = a.indexer is not None or (isinstance(a, Attention) and a.compressed is not None)
        return (self.decoded, 1.0) if chooses else (self.decodes, self.width)

    def _prefill_window(self, a: Attention) -> float | Array | None:
        """Keys that a prompt token attends: all, a window, or what a selector leaves of the mean context."""
        if a.compressed is not None or a.indexer is not None:
            return attended_tokens(a, self.prefix + self.chunk / self.prompts / 2)
        return None if a.window is None else float(a.window)

    def _indexer(self, heads: int, width: int, ratio: float, times: Array) -> None:
        """Scores of a sparse-attention selector over the context, ``ratio`` tokens to an entry."""
        shape = (float(heads), float(width))
        seconds = indexer_seconds(self.width, self.context / ratio / self.cp, self.decodes, *shape, **self.common)
        if self.prefilling:
            query, prefix = own_piece(self.chunk / self.prompts, self.prefix, self.cp)
            seconds = seconds + indexer_seconds(query, prefix / ratio, self.prompts, *shape, **self.common)
        self._add("sparse indexer", seconds, times)

    def _latent(self, a: LatentAttention, times: Array) -> None:
        heads = np.ceil(a.heads / self.layouts.tp)
        top_k = float(a.indexer.top_k) if a.indexer else None
        options: dict[str, Any] = {"kv_bytes": self.replica.kv_bytes, "top_k": top_k, **self.common}
        if self.decoding:
            sequences, queries = self._checking(a)
            self._merge(times, heads, a.kv_rank + a.rope_dim, a.kv_rank)
            seconds = latent_decode_seconds(
                sequences, self.context / self.cp, heads * queries, float(a.kv_rank), float(a.rope_dim), **options
            )
            read = attended_tokens(a, self.context / self.cp)
            cache = sequences * read * ((a.kv_rank + a.rope_dim) * self.replica.kv_bytes)
            self._add("attention decode", seconds, times, moved=cache)
        if self.prefilling:
            query, prefix = own_piece(self.chunk / self.prompts, self.prefix, self.cp)
            seconds = latent_prefill_seconds(
                query, prefix, self.prompts, heads,
                nope_dim=float(a.nope_dim), rope_dim=float(a.rope_dim), value_dim=float(a.value_dim), **options,
            )  # fmt: skip
            self._add("attention prefill", seconds, times)
            self._gather(times, np.asarray((a.kv_rank + a.rope_dim) * self.replica.kv_bytes), seconds, None)
        if a.indexer is not None and not a.indexer.shared:
            self._indexer(a.indexer.heads, a.indexer.head_dim, 1.0, times)

    def _merge(self, times: Array, heads: Array, key_width: int, value_width: int) -> None:
        """Queries and partial outputs of decodes whose cache lies on several context ranks."""
        if self.layouts.long:
            seconds = merge_seconds(self.replica, self.layouts, self.decoded, heads, key_width, value_width)
            self._add("context exchange", self._waited(seconds, self.layouts.cp, 2.0), times)

    def _gather(self, times: Array, entry_bytes: Array, attention: Array, window: int | None) -> None:
        """Keys and values of a chunk and of what its queries see before it, from the other context ranks."""
        if not self.layouts.long:
            return
        seen = self.prefix if window is None else np.minimum(self.prefix, float(window))
        size = (seen * self.prompts + self.chunk) * entry_bytes
        seconds = gather_seconds(self.replica, self.layouts, size, attention)
        self._add("context exchange", self._waited(seconds, self.layouts.cp), times)

    def _recurrent(self, mixer: LinearAttention | Mamba, times: Array) -> None:
        if isinstance(mixer, LinearAttention):
            heads, rows, columns = mixer.value_heads, mixer.key_dim, mixer.value_dim
        else:
            heads, rows, columns = mixer.heads, mixer.head_dim, mixer.state_size
        shape = (np.ceil(heads / self.layouts.tp), float(rows), float(columns))
        options: dict[str, Any] = {"state_bytes": float(mixer.state_dtype_bytes), **self.common}
        # Every checked position leaves a state of its own, of which the last accepted one is kept.
        states = self.decodes * (1.0 + self.width) / 2.0
        seconds = recurrent_seconds(self.decoded, states, *shape, **options)
        if self.prefilling:
            seconds = seconds + recurrent_seconds(self.chunk, self.prompts, *shape, **options)
        self._add("recurrent state", seconds, times)

    def _experts(self, ffn: MoeFfn, times: Array) -> None:
        form = self.replica.formats[Part.EXPERTS]
        tokens = self.routed_tokens
        rows, active = rank_load(self.replica.engine, ffn, tokens, self.layouts)
        seconds = experts_seconds(
            tokens, float(ffn.latent or self.hidden), float(ffn.width),
            float(ffn.experts), float(ffn.top_k), ep=self.layouts.ep, tp=self.layouts.expert_tp, gated=ffn.gated,
            math=form.math, weight_bytes=form.bytes_per_weight,
            evenness=self.replica.engine.evenness, rows=rows, active=active, **self.common,
        )  # fmt: skip
        self._add("experts", seconds, times, moved=self._expert_bytes(ffn, tokens, form.bytes_per_weight))

    def _expert_bytes(self, ffn: MoeFfn, tokens: Array, weight_bytes: float) -> Array:
        """Weights of the experts that ``tokens`` reach, on one rank."""
        one = sum(linear.parameters for linear in expert_linears(ffn, self.hidden)) * weight_bytes
        reached = active_experts(float(ffn.experts), float(ffn.top_k), tokens, evenness=self.replica.engine.evenness)
        return np.asarray(reached * one / (self.layouts.ep * self.layouts.expert_tp))

    def _norms(self, layer: Layer, times: Array) -> None:
        """Kernels that only move activations: norms, rotary embedding and KV write, the product with the gate.

        Each half of a layer reads and writes the residual stream and the normalised copy, 4 passes over the hidden
        states of all ranks; the rest is cut over tp.
        """
        halves = (layer.mixer is not None) + (layer.ffn is not None)
        size = halves * 4 * ACTIVATION_BYTES * self.hidden + self._activation_bytes(layer)
        self._add("norms", elementwise_seconds(size * self.tokens, **self.common), times)

    def _activation_bytes(self, layer: Layer) -> Array:
        """Bytes per token between matrix products on one rank: queries are rotated in place, keys and values read and
        cached, a gated block reads two halves and writes one; routed experts book theirs apart.
        """
        m, tp, moved = layer.mixer, self.layouts.tp, 0.0 * self.layouts.tp
        cached = ACTIVATION_BYTES + self.replica.kv_bytes
        if isinstance(m, Attention):
            moved = 2 * ACTIVATION_BYTES * m.heads * m.head_dim / tp
            moved = moved + cached * np.maximum(1.0, m.kv_heads / tp) * (m.head_dim + m.value_dim)
        if isinstance(m, LatentAttention):
            moved = 2 * ACTIVATION_BYTES * m.heads * (m.nope_dim + m.rope_dim + m.value_dim) / tp
            moved = moved + cached * (m.kv_rank + m.rope_dim)
        if layer.ffn is not None:
            width = layer.ffn.shared_width if isinstance(layer.ffn, MoeFfn) else layer.ffn.width
            moved = moved + ACTIVATION_BYTES * (3 if layer.ffn.gated else 2) * width / tp
        return moved

    def _after_mixer(self, times: Array) -> None:
        self._all_reduce(times)

    def _all_reduce(self, times: Array) -> None:
        """Sum the partial outputs of a row-cut matrix over the tp ranks; tp = 1 sends nothing."""
        if np.any(self.layouts.tp > 1):
            message = self.tokens * self.hidden * ACTIVATION_BYTES
            seconds = all_reduce_seconds(
                message, self.layouts.tp, topology=self.replica.topology, efficiency=self.replica.efficiency
            )
            self._add("all-reduce", self._waited(seconds, self.layouts.tp), times)

    def _waited(self, seconds: Array, ranks: Array, collectives: float = 1.0) -> Array:
        """Seconds of collectives inside an engine, where ranks arrive at different times.

        All wait for the last: the expected largest of n exponential delays grows like log n, and so do the rounds of a
        barrier (a benchmark loop keeps its ranks in step). ``collective_wait`` is that of two ranks.
        """
        engine = self.replica.engine
        wait = collectives * engine.collective_wait * np.log2(np.maximum(ranks, 1.0))
        return np.where(seconds > 0, seconds + wait / engine.collective_slowdown, 0.0)

    def _after_experts(self, ffn: MoeFfn, times: Array) -> None:
        """Bring tokens to their experts and back.

        Without attention data or context parallelism all ranks hold all tokens: one all-reduce sums the experts'
        outputs. With them, tokens are dispatched and combined (all-to-all), or gathered and reduce-scattered where that
        is less.
        """
        groups = self.layouts.token_groups
        if np.any(groups == 1):
            self._all_reduce(times * (groups == 1))
        if not np.any(groups > 1):
            return
        links: dict[str, Any] = {"topology": self.replica.topology, "efficiency": self.replica.efficiency}
        ranks = self.layouts.tp * groups
        row = (ffn.latent or self.hidden) * ACTIVATION_BYTES
        # A token travels once to each rank that holds any of its experts.
        spread = active_experts(self.layouts.ep, 1.0, float(ffn.top_k))
        exchange = 2 * all_to_all_seconds(self.tokens / self.layouts.tp * spread * row, ranks, **links)
        exchange = exchange + self.replica.exchange_start
        gathered = self.routed_tokens * row
        gather = 2 * all_gather_seconds(gathered, ranks, **links)
        if self.replica.engine.expert_exchange == "fastest":
            exchange = np.minimum(exchange, gather)
        routed = np.where(self.layouts.ep > 1, exchange, gather)
        self._add("expert dispatch", self._waited(routed, ranks, 2.0), times * (groups > 1))


def _fused(
    linears: tuple[Linear, ...], layouts: Layouts, kv_heads: int
) -> list[tuple[float | Array, float | Array, Part, int]]:
    """Per-rank (inputs, outputs, part, copies); matrices that read the same input run as one GEMM, as engines
    fuse them.
    """
    joint: dict[tuple[int, Part, bool], Array] = {}
    alone: list[tuple[float | Array, float | Array, Part, int]] = []
    for linear in linears:
        outputs = linear.outputs / _cut(linear, layouts, kv_heads)
        if linear.shard is Shard.ROW:
            alone.append((linear.inputs / layouts.tp, float(linear.outputs), linear.part, linear.copies))
        elif linear.copies > 1 or linear.absorbed or linear.part is Part.ROUTER:
            alone.append((float(linear.inputs), outputs, linear.part, linear.copies))
        else:
            key = (linear.inputs, linear.part, linear.shard is Shard.REPLICATED)
            joint[key] = joint.get(key, np.zeros(1)) + outputs
    return alone + [(float(inputs), outputs, part, 1) for (inputs, part, _), outputs in joint.items()]


def _cut(linear: Linear, layouts: Layouts, kv_heads: int) -> Array:
    """Ways in which the outputs are cut."""
    if linear.shard is Shard.COLUMN:
        return layouts.tp
    if linear.shard is Shard.KV:
        return np.minimum(layouts.tp, float(kv_heads))
    return np.ones(1)
