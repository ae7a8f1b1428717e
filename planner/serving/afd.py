"""Attention and feed-forward blocks on GPUs of their own (attention-FFN disaggregation), decode only.

n_a attention workers hold the KV cache and are data parallel; n_f feed-forward workers share the experts. A layer takes
a micro-batch through attention t_a, dispatch t_d, feed-forward t_f and combine t_c. Each occupies something of its own:
attention GPUs, the network to the experts, the links inside a feed-forward worker, its GPUs, the network back (the two
directions do not compete). With m micro-batches in flight and t_max the longest occupation (MegaScale-Infer, arXiv
2504.02263, equations 1 to 5; Step-3, arXiv 2507.19427, section 4, with m = 3 and three stages):

  cycle of a layer = max(m * t_max, t_a + t_d + t_f + t_c)
  iteration        = sum of the cycles + (t_a + t_d + t_f + t_c) - t_max of one layer for the fill

Stages are hidden behind the slowest one once m >= (t_a + t_d + t_f + t_c)/t_max; m = 1 adds all of them up. A link is
occupied for its wire bytes; a message also takes the latencies, which delay but occupy nothing. Attention computes the
LM head, the router and what stands between the two halves of a layer; the host works beside the GPUs once there are two
micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from planner.architecture.model import Attention, LatentAttention, Layer, Model, MoeFfn, Part
from planner.cost.elementwise import elementwise_seconds
from planner.cost.gemm import gemm_seconds
from planner.serving.ffn_messages import Messages, dispatch_bytes, messages
from planner.serving.ffn_worker import FfnWorkers, each_layer
from planner.serving.iteration import ACTIVATION_BYTES, IN_GRAPH_LAUNCH, Work, iteration_ledger
from planner.serving.layout import Array, Layout, Layouts, distinct, floats
from planner.serving.legality import ShapeProblem
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica


def split_problem(model: Model) -> ShapeProblem | None:
    """Why a model cannot be cut between attention and feed-forward blocks, or None.

    Every layer needs both halves, and mixers must be attention: recurrent state is updated by work as large as the
    blocks themselves, and engines keep hybrid layers whole.
    """
    for layer in model.layers:
        if layer.mixer is None or layer.ffn is None:
            missing = "attention" if layer.mixer is None else "feed-forward block"
            return ShapeProblem("no boundary between attention and FFN", "both halves in every layer", f"no {missing}")
        if not isinstance(layer.mixer, Attention | LatentAttention):
            return ShapeProblem(
                "hybrid state cannot be split", "attention in every layer", type(layer.mixer).__name__.lower()
            )
    return None


def attention_half(replica: Replica) -> Replica:
    """Embedding, attention of every layer, head."""
    layers = each_layer(replica.model, lambda layer: Layer(layer.mixer, None))
    return replace(replica, model=replace(replica.model, layers=layers))


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
class Stages:
    """One micro-batch, in seconds summed over the layers; ``host`` per micro-batch and iteration.

    ``attention``, ``dispatch``, ``ffn`` and ``combine`` follow each other; ``busy`` says for how long each link is
    occupied by it.
    """

    attention: Array
    dispatch: Array
    ffn: Array
    combine: Array
    host: Array
    layers: float
    busy: Messages | None = None

    @property
    def total(self) -> Array:
        """One micro-batch through all layers alone."""
        return self.attention + self.dispatch + self.ffn + self.combine

    @property
    def occupied(self) -> dict[str, Array]:
        """Seconds that one micro-batch occupies each resource."""
        links = self.busy or Messages(self.dispatch, self.combine, self.dispatch, self.combine, 0.0 * self.dispatch)
        return {
            "attention": self.attention,
            "network to the experts": links.to_ffn,
            "links inside FFN workers": links.inside,
            "ffn": self.ffn,
            "network back": links.back,
        }

    @property
    def slowest(self) -> Array:
        """The occupation that sets the pace."""
        first, *others = self.occupied.values()
        for seconds in others:
            first = np.maximum(first, seconds)
        return first

    def iteration(self, micro_batches: Array) -> Array:
        """Seconds of one decode iteration of all micro-batches; see the module."""
        cycles = np.maximum(micro_batches * self.slowest, self.total)
        filled = cycles + (micro_batches > 1) * (self.total - self.slowest) / self.layers
        # The host prepares one micro-batch while the others are computed; alone, everybody waits for it.
        return np.where(micro_batches > 1, np.maximum(filled, micro_batches * self.host), filled + self.host)

    def limiting(self, micro_batches: Array) -> list[str]:
        """What sets the pace, row by row: the name of a resource, or ``latency`` where too few micro-batches hide the
        way of one through a layer."""
        names = list(self.occupied)
        table = np.array([np.broadcast_to(self.occupied[name], self.total.shape) for name in names])
        hidden = micro_batches * self.slowest >= self.total
        return [names[i] if ok else "latency" for i, ok in zip(table.argmax(axis=0), hidden, strict=True)]


@dataclass(frozen=True, slots=True)
class AttentionFfn:
    """Both sides of the split on their own GPUs."""

    attention: Replica
    ffn: Replica

    def blocks(self, workers: Workers) -> FfnWorkers:
        """The feed-forward side."""
        return FfnWorkers.of(self.ffn, workers.ffn, workers.ffn_gpus, workers.ffn_ep)

    def stages(self, workers: Workers, requests: Array, lengths: Lengths) -> Stages:
        """Evaluate ``requests`` running over all attention workers [rows], evenly but for chance in their lengths."""
        micro = requests / workers.micro_batches
        # Requests are whole: where there are fewer than ranks, some rank still has one.
        own = np.maximum(micro / workers.ranks, np.minimum(micro, 1.0))
        return self.stages_of(workers, own, micro, lengths.decode_context, barrier(own, workers.ranks, lengths))

    def stages_of(
        self, workers: Workers, own: Array, micro: Array, context: ArrayLike, waiting: Array | float = 1.0
    ) -> Stages:
        """Stages of a micro-batch of ``micro`` tokens, ``own`` of them on the fullest attention rank at a mean
        ``context``; ``waiting`` is the slowest rank's attention over that."""
        blocks = self.blocks(workers)
        sent, held = blocks.visits()
        seconds = self._attention(workers, own, context)
        if "attention decode" in seconds:
            seconds["attention decode"] = seconds["attention decode"] * waiting
        host = seconds.pop("host", np.zeros(1))
        layers = float(len(self.attention.model.layers))
        attention = np.asarray(sum(seconds.values(), start=np.zeros(1))) + self._around_blocks(own, sent)
        products = blocks.seconds(micro)
        there = messages(
            self.attention, self.ffn, micro * sent, micro * held, workers.attention_gpus, workers.ffn, workers.ffn_gpus,
            workers.ffn_ep, products / layers,
        ).times(layers)  # fmt: skip
        return Stages(attention, there.dispatch, products, there.combine, host, layers, there)

    def memories(self, workers: Workers, lengths: Lengths) -> tuple[Memory, Memory]:
        """Budgets of an attention GPU and of a feed-forward GPU."""
        return self.held(workers, lengths), self.blocks(workers).memory(lengths)

    def held(self, workers: Workers, lengths: Lengths) -> Memory:
        """Budget of an attention GPU, which never computes a prompt."""
        half = attention_half(self.attention)
        engine = replace(half.engine, chunk_tokens=min(half.engine.chunk_tokens, half.engine.max_sequences))
        return memory(replace(half, engine=engine), workers.attention_layouts, lengths)

    def _attention(self, workers: Workers, sequences: Array, context: ArrayLike) -> dict[str, Array]:
        """Seconds by operator of one micro-batch on an attention rank."""
        layouts, context = workers.attention_layouts, floats(context)
        if sequences.ndim < 2 or context.shape[1:] not in ((), (1,)):
            work = Work(sequences=sequences, context=context)
            return dict(iteration_ledger(attention_half(self.attention), layouts, work).seconds)
        # A table of many splits: what a rank does knows only its width and its requests, not how many ranks there are.
        kept, like = distinct(layouts.tp, context.reshape(-1, 1), sequences)
        ones = np.ones((len(kept), 1))
        few = Layouts(layouts.tp[kept], ones, ones, ones)
        work = Work(sequences=sequences[kept], context=context[kept] if context.size > 1 else context)
        ledger = iteration_ledger(attention_half(self.attention), few, work)
        return {name: s[like] if s.ndim > 1 and len(s) > 1 else s for name, s in ledger.seconds.items()}

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
