"""Attention and feed-forward blocks on GPUs of their own (attention-FFN disaggregation), decode only.

n_a attention workers hold the KV cache and are data parallel; n_f feed-forward workers share the experts; micro-batches
ping-pong between them (ping_pong.py). Attention computes the LM head, the router and what stands between the two halves
of a layer; the host works beside the GPUs once there are two micro-batches.

With drafts of k tokens, 1 + k tokens of a sequence pass every layer, its router, messages and experts, and share one
read of the cache. k passes of the draft follow, the first over all checked tokens and the others over one of each
sequence, as in iteration.py: through both kinds of workers where a prediction layer has experts, else on the attention
workers alone (halves.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from planner.architecture.model import MoeFfn, Part
from planner.cost.elementwise import elementwise_seconds
from planner.cost.gemm import gemm_seconds
from planner.serving.ffn_messages import dispatch_bytes, messages
from planner.serving.ffn_worker import FfnWorkers
from planner.serving.halves import attention_half, draft_with_blocks
from planner.serving.iteration import ACTIVATION_BYTES, IN_GRAPH_LAUNCH, Work, fold_seconds, iteration_ledger
from planner.serving.layout import Array, Layout, Layouts, distinct, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.ping_pong import Stages
from planner.serving.replica import Replica
from planner.serving.speculation import Speculation


@dataclass(frozen=True, slots=True)
class Workers:
    """Attention and feed-forward workers, one element per row: ``attention_tp`` and ``attention_dp`` ranks of an
    attention worker, ``ffn_ep`` expert groups and ``ffn_gpus`` GPUs of a feed-forward worker, micro-batches."""

    attention: Array
    attention_tp: Array
    attention_dp: Array
    ffn: Array
    ffn_ep: Array
    ffn_gpus: Array
    micro_batches: Array

    @classmethod
    def one(cls, attention: Layout, ffn: Layout, counts: tuple[int, int], micro_batches: int) -> Workers:
        """One row: attention workers and feed-forward workers of these layouts, so many of each."""
        numbers = (counts[0], attention.tp, attention.attention_dp, counts[1], ffn.ep, ffn.gpus, micro_batches)
        return cls(*(np.array([float(x)]) for x in numbers))

    def rows(self, kept: Sequence[int]) -> Workers:
        """Some of the rows."""
        index = np.asarray(kept, dtype=int)
        return Workers(*(x[index] for x in self._members()))

    def column(self) -> Workers:
        """The same rows as a column [n, 1]."""
        return Workers(*(x.reshape(-1, 1) for x in self._members()))

    def _members(self) -> tuple[Array, ...]:
        return (
            self.attention, self.attention_tp, self.attention_dp, self.ffn, self.ffn_ep, self.ffn_gpus,
            self.micro_batches,
        )  # fmt: skip

    @property
    def key(self) -> tuple[bytes, ...]:
        """Equal for equal rows."""
        return tuple(x.tobytes() for x in self._members())

    @property
    def gpus(self) -> Array:
        """GPUs of both sides."""
        return self.attention_gpus + self.ffn_side

    @property
    def attention_gpus(self) -> Array:
        """GPUs that hold attention and KV cache."""
        return self.attention * self.attention_tp * self.attention_dp

    @property
    def ffn_side(self) -> Array:
        """GPUs that hold feed-forward blocks."""
        return self.ffn * self.ffn_gpus

    @property
    def ranks(self) -> Array:
        """Attention ranks that share the requests."""
        return self.attention * self.attention_dp

    @property
    def attention_layouts(self) -> Layouts:
        """One attention rank group: tensor parallel, everything else is data parallel."""
        ones = np.ones_like(self.attention)
        return Layouts(self.attention_tp, ones, ones, ones)


@dataclass(frozen=True, slots=True)
class AttentionFfn:
    """Both sides of the split on their own GPUs; where one speculates, the other does so in the same way."""

    attention: Replica
    ffn: Replica

    def __post_init__(self) -> None:
        """Check that both sides draft alike."""
        if str(self.attention.speculation) != str(self.ffn.speculation):
            raise ValueError("attention and feed-forward workers need the same draft")

    def blocks(self, workers: Workers) -> FfnWorkers:
        """The feed-forward side."""
        return FfnWorkers.of(self.ffn, workers.ffn, workers.ffn_gpus, workers.ffn_ep)

    def token_seconds(self, workers: Workers, requests: Array, lengths: Lengths) -> Array:
        """Seconds per output token with ``requests`` running over all attention workers [rows]: one iteration over the
        tokens that it yields."""
        seconds = self.stages(workers, requests, lengths).iteration(workers.micro_batches)
        return np.asarray(seconds / self.attention.tokens_per_step)

    def stages(self, workers: Workers, requests: Array, lengths: Lengths) -> Stages:
        """Evaluate ``requests`` running over all attention workers [rows], evenly but for chance in their lengths."""
        micro = requests / workers.micro_batches
        # Requests are whole: where there are fewer than ranks, some rank still has one.
        own = np.maximum(micro / workers.ranks, np.minimum(micro, 1.0))
        return self.stages_of(workers, own, micro, lengths.decode_context, barrier(own, workers.ranks, lengths))

    def stages_of(
        self, workers: Workers, own: Array, micro: Array, context: ArrayLike, waiting: Array | float = 1.0
    ) -> Stages:
        """Stages of a micro-batch of ``micro`` requests, ``own`` of them on the fullest attention rank at a mean
        ``context``; ``waiting`` is the slowest rank's attention over that."""
        how = self.attention.speculation
        if how is None:
            return self._through(workers, Work(sequences=own, context=context), micro, waiting)
        plain = AttentionFfn(self.attention.drafting_nothing, self.ffn.drafting_nothing)
        checking = Work(sequences=own, context=context, drafted=float(how.tokens))
        stages = plain._through(workers, checking, micro * (1.0 + how.tokens), waiting)
        if how.draft is None:
            return replace(stages, host=stages.host + self.attention.engine.draft_step)
        drafts = [self._draft(how, workers, replace(checking, one_sample=True), micro * (1.0 + how.tokens), waiting)]
        if how.tokens > 1:
            later = replace(how, joined=how.joined if how.rejoined is None else how.rejoined)
            again = self._draft(later, workers, Work(sequences=own, context=context), micro, waiting)
            drafts.append(again.times(how.tokens - 1.0))
        return replace(stages, drafts=tuple(drafts))

    def _draft(
        self, how: Speculation, workers: Workers, work: Work, tokens: Array, waiting: Array | float
    ) -> Stages:  # fmt: skip
        """One pass of a draft over ``tokens`` of a micro-batch."""
        first, second = how.draft, draft_with_blocks(self.ffn.speculation)
        assert first is not None
        if second is None:
            stages = _alone(first, workers, work, waiting)
        else:
            stages = AttentionFfn(first, second)._through(workers, work, tokens, waiting)
        fold = fold_seconds(self.attention, how.joined, workers.attention_layouts, work)
        return replace(stages, attention=stages.attention + fold)

    def _through(
        self, workers: Workers, work: Work, tokens: Array, waiting: Array | float
    ) -> Stages:  # fmt: skip
        """Stages of one pass of ``tokens``, of which the fullest attention rank has those of ``work``."""
        blocks = self.blocks(workers)
        sent, held = blocks.visits()
        seconds, host = _on_rank(attention_half(self.attention), workers, work, waiting)
        layers = float(len(self.attention.model.layers))
        own = floats(work.sequences) * (1.0 + work.drafted)
        attention = seconds + self._around_blocks(own, sent)
        products = blocks.seconds(tokens)
        there = messages(
            self.attention, self.ffn, tokens * sent, tokens * held, workers.attention_gpus, workers.ffn,
            workers.ffn_gpus, workers.ffn_ep, products / layers,
        ).times(layers)  # fmt: skip
        return Stages(attention, there.dispatch, products, there.combine, host, layers, there)

    def memories(self, workers: Workers, lengths: Lengths) -> tuple[Memory, Memory]:
        """Budgets of an attention GPU and of a feed-forward GPU."""
        return self.held(workers, lengths), self.blocks(workers).memory(lengths)

    def held(self, workers: Workers, lengths: Lengths) -> Memory:
        """Budget of an attention GPU, which never computes a prompt."""
        half = attention_half(self.attention)
        most = half.engine.max_sequences * half.verified
        engine = replace(half.engine, chunk_tokens=min(half.engine.chunk_tokens, most))
        return memory(replace(half, engine=engine), workers.attention_layouts, lengths)

    def _around_blocks(self, tokens: Array, sent: Array) -> Array:
        """Seconds, over all layers, of what attention GPUs do for the feed-forward half: norm and residual (four passes
        over the hidden states), the router, what leaves in fewer bits, the sum of what comes back from ``sent``
        workers."""
        replica, hidden = self.attention, float(self.attention.model.hidden)
        narrow = dispatch_bytes(self.ffn)
        moved = tokens * hidden * ((4.0 + sent) * ACTIVATION_BYTES + (narrow if narrow < ACTIVATION_BYTES else 0.0))
        total = len(replica.model.layers) * elementwise_seconds(
            moved, accelerator=replica.accelerator, efficiency=replica.efficiency, launch=IN_GRAPH_LAUNCH
        )
        form = replica.formats[Part.ROUTER]
        for group in replica.groups:
            if isinstance(group.layer.ffn, MoeFfn):
                targets = float(group.layer.ffn.experts + group.layer.ffn.zero_experts)
                total = total + group.count * gemm_seconds(
                    tokens, targets, hidden, math=form.math, weight_bytes=form.bytes_per_weight,
                    accelerator=replica.accelerator, efficiency=replica.efficiency, launch=IN_GRAPH_LAUNCH,
                )  # fmt: skip
        return np.asarray(total * replica.engine.dense_slowdown)


def _alone(draft: Replica, workers: Workers, work: Work, waiting: Array | float) -> Stages:
    """Stages of one pass of a draft that runs whole on the attention workers."""
    seconds, host = _on_rank(draft, workers, work, waiting)
    none = 0.0 * seconds
    return Stages(seconds, none, none, none, host, float(len(draft.model.layers)))


def _on_rank(replica: Replica, workers: Workers, work: Work, waiting: Array | float) -> tuple[Array, Array]:
    """Seconds of one pass on an attention rank, the slowest ``waiting`` times as long as the mean over its caches; and
    of the host."""
    layouts, sequences, context = workers.attention_layouts, floats(work.sequences), floats(work.context)
    if sequences.ndim < 2 or context.shape[1:] not in ((), (1,)):
        seconds = dict(iteration_ledger(replica, layouts, work).seconds)
    else:
        # A table of many splits: what a rank does knows only its width and its requests, not how many ranks there are.
        kept, like = distinct(layouts.tp, context.reshape(-1, 1), sequences)
        ones = np.ones((len(kept), 1))
        few = replace(work, sequences=sequences[kept], context=context[kept] if context.size > 1 else context)
        ledger = iteration_ledger(replica, Layouts(layouts.tp[kept], ones, ones, ones), few)
        seconds = {name: s[like] if s.ndim > 1 and len(s) > 1 else s for name, s in ledger.seconds.items()}
    if "attention decode" in seconds:
        seconds["attention decode"] = seconds["attention decode"] * waiting
    host = seconds.pop("host", np.zeros(1))
    return np.asarray(sum(seconds.values(), start=np.zeros(1))), host


def barrier(sequences: Array, ranks: Array, lengths: Lengths) -> Array:
    """Slowest of ``ranks`` over the mean, for ``sequences`` contexts each: 1 + cv * E[max of n normals]/sqrt(b).

    Contexts are uniform between isl and isl + osl, so cv = osl/sqrt(12)/(isl + osl/2); E[max] by Blom's formula
    (arXiv 2601.21351 corrects its barrier in the same way).
    """
    spread = floats(lengths.osl) / np.sqrt(12.0) / lengths.decode_context
    shares = (floats(ranks) - 0.375) / (floats(ranks) + 0.25)
    normal = np.vectorize(NormalDist().inv_cdf, otypes=[float])
    worst = np.maximum(normal(np.maximum(shares, 0.5)), 0.0)
    return np.asarray(1.0 + spread * worst / np.sqrt(np.maximum(sequences, 1.0)))
