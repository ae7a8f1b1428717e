"""Attention and feed-forward blocks on GPUs of their own (attention-FFN disaggregation), decode only.

n_a attention workers hold the KV cache and are data parallel; n_f feed-forward workers share the experts. A layer takes
a micro-batch through four stages: attention t_a, dispatch t_d, feed-forward t_f, combine t_c; the two directions of the
network do not compete. With m micro-batches in flight and slowest stage t_max (MegaScale-Infer, arXiv 2504.02263,
equations 1 to 5; Step-3, arXiv 2507.19427, section 4, with m = 3 and three stages):

  cycle of a layer = max(m * t_max, t_a + t_d + t_f + t_c)
  iteration        = sum of the cycles + (t_a + t_d + t_f + t_c) - t_max of one layer for the fill

The LM head is attention's; the host works beside the GPUs once there are two micro-batches. Stages are hidden behind
the slowest one once m >= (t_a + t_d + t_f + t_c)/t_max; m = 1 adds all of them up. A message of a micro-batch of T
tokens to one FFN worker has T * P * hidden * bytes, P = 1 - C(E - E/n_f, k)/C(E, k) the chance that a token goes there
(1 for dense blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from planner.architecture.model import Attention, LatentAttention, Layer, Model, MoeFfn, Part
from planner.cost.collective import all_gather_seconds, all_to_all_seconds, point_to_point_seconds
from planner.cost.moe import EVEN, active_experts
from planner.serving.iteration import ACTIVATION_BYTES, Work, iteration_ledger
from planner.serving.layout import Array, Layouts, floats
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
    layers = tuple(Layer(layer.mixer, None) for layer in replica.model.layers)
    return replace(replica, model=replace(replica.model, layers=layers))


def ffn_half(replica: Replica) -> Replica:
    """Feed-forward blocks and experts of every layer, nothing else."""
    layers = tuple(Layer(None, layer.ffn) for layer in replica.model.layers)
    # FFN pools replicate popular experts and place them by load: only the draw of tokens keeps their ranks uneven.
    engine = replace(replica.engine, evenness=EVEN)
    return replace(replica, engine=engine, model=replace(replica.model, layers=layers, vocab=0, positions=0))


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

    def rows(self, kept: Sequence[int]) -> Workers:
        """Some of the rows."""
        index = np.asarray(kept, dtype=int)
        return Workers(
            self.attention[index], self.attention_tp[index], self.attention_dp[index], self.ffn[index],
            self.ffn_ep[index], self.ffn_gpus[index], self.micro_batches[index],
        )  # fmt: skip

    @property
    def gpus(self) -> Array:
        """GPUs of both sides."""
        return self.attention_gpus + self.ffn * self.ffn_gpus

    @property
    def attention_gpus(self) -> Array:
        """GPUs that hold attention and KV cache."""
        return self.attention * self.attention_tp * self.attention_dp

    @property
    def attention_layouts(self) -> Layouts:
        """One attention rank group: tensor parallel, everything else is data parallel."""
        ones = np.ones_like(self.attention)
        return Layouts(self.attention_tp, ones, ones, ones)

    @property
    def ffn_layouts(self) -> Layouts:
        """All feed-forward workers as one group: experts and blocks are cut over all of their GPUs."""
        ones = np.ones_like(self.ffn)
        return Layouts(self.ffn * self.ffn_gpus, ones, ones, self.ffn * self.ffn_ep)


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of one micro-batch summed over the layers; ``host`` per micro-batch and iteration."""

    attention: Array
    dispatch: Array
    ffn: Array
    combine: Array
    host: Array
    layers: float

    @property
    def total(self) -> Array:
        """One micro-batch through all layers alone."""
        return self.attention + self.dispatch + self.ffn + self.combine

    @property
    def slowest(self) -> Array:
        """The stage that sets the pace."""
        return np.maximum(np.maximum(self.attention, self.ffn), np.maximum(self.dispatch, self.combine))

    def iteration(self, micro_batches: Array) -> Array:
        """Seconds of one decode iteration of all micro-batches; see the module."""
        cycles = np.maximum(micro_batches * self.slowest, self.total)
        filled = cycles + (micro_batches > 1) * (self.total - self.slowest) / self.layers
        # The host prepares one micro-batch while the others are computed; alone, everybody waits for it.
        return np.where(micro_batches > 1, np.maximum(filled, micro_batches * self.host), filled + self.host)

    @property
    def limiting(self) -> list[str]:
        """Name of the slowest stage, row by row."""
        names = ("attention", "dispatch", "ffn", "combine")
        table = np.array([np.ravel(getattr(self, name)) for name in names])
        return [names[i] for i in table.argmax(axis=0)]


@dataclass(frozen=True, slots=True)
class AttentionFfn:
    """Both sides of the split on their own GPUs."""

    attention: Replica
    ffn: Replica

    def stages(self, workers: Workers, requests: Array, lengths: Lengths) -> Stages:
        """Evaluate ``requests`` running over all attention workers [rows]."""
        micro = requests / workers.micro_batches
        ranks = workers.attention * workers.attention_dp
        own = self._attention(workers, micro / ranks, lengths)
        host = own.pop("host", np.zeros(1))
        blocks = self._ffn(workers, micro)
        to_ffn, back = self._messages(workers, micro * worker_reach(self.ffn.model, workers.ffn))
        layers = float(len(self.attention.model.layers))
        attention = np.asarray(sum(own.values(), start=np.zeros(1)))
        return Stages(attention, to_ffn * layers, blocks, back * layers, host, layers)

    def memories(self, workers: Workers, lengths: Lengths) -> tuple[Memory, Memory]:
        """Budgets of an attention GPU and of a feed-forward GPU."""
        held = memory(attention_half(self.attention), workers.attention_layouts, lengths)
        blocks = memory(ffn_half(self.ffn), workers.ffn_layouts, lengths)
        return held, blocks

    def _attention(self, workers: Workers, sequences: Array, lengths: Lengths) -> dict[str, Array]:
        """Seconds by operator of one micro-batch on the slowest attention rank."""
        work = Work(sequences=sequences, context=lengths.decode_context)
        seconds = dict(iteration_ledger(attention_half(self.attention), workers.attention_layouts, work).seconds)
        if "attention decode" in seconds:
            ranks = workers.attention * workers.attention_dp
            seconds["attention decode"] = seconds["attention decode"] * barrier(sequences, ranks, lengths)
        return seconds

    def _ffn(self, workers: Workers, tokens: Array) -> Array:
        """Seconds of all feed-forward blocks for one micro-batch; norms are the attention side's."""
        half = ffn_half(self.ffn)
        seconds = iteration_ledger(half, workers.ffn_layouts, Work(sequences=tokens, context=1.0)).seconds
        elsewhere = ("host", "lm head", "norms", "all-reduce")
        return np.asarray(sum((v for name, v in seconds.items() if name not in elsewhere), start=np.zeros(1)))

    def _messages(self, workers: Workers, tokens: Array) -> tuple[Array, Array]:
        """Seconds of dispatch and combine of ``tokens`` per feed-forward worker in one layer.

        The fuller NICs, to which all GPUs of a worker lend theirs; behind them the tokens of a worker spread over its
        GPUs: gathered and reduce-scattered where they share every expert, sent on to those that hold them with ep.
        """
        hidden = float(self.ffn.model.hidden)
        sent = tokens * workers.ffn / workers.attention_gpus
        taken = tokens / workers.ffn_gpus
        links: dict[str, Any] = {"topology": self.ffn.topology, "efficiency": self.ffn.efficiency}
        reached = active_experts(workers.ffn_ep, 1.0, mean_top_k(self.ffn.model) / workers.ffn)

        def seconds(width: float) -> Array:
            across = np.maximum(
                _network(self.attention, sent * hidden * width), _network(self.ffn, taken * hidden * width)
            )
            gathered = all_gather_seconds(tokens * hidden * width, workers.ffn_gpus, **links)
            routed = all_to_all_seconds(taken * reached * hidden * width, workers.ffn_gpus, **links)
            inside = np.where(workers.ffn_ep >= workers.ffn_gpus, routed, gathered)
            # Writes without a receiver that waits: no slowdown of collectives, whose ranks arrive at different times.
            return np.asarray(across + inside)

        return seconds(dispatch_bytes(self.ffn)), seconds(ACTIVATION_BYTES)


def mean_top_k(model: Model) -> float:
    """Experts that a token visits, averaged over the layers; 1 for a dense block."""
    chosen = [layer.ffn.top_k if isinstance(layer.ffn, MoeFfn) else 1 for layer in model.layers]
    return sum(chosen) / len(chosen)


def _network(replica: Replica, message: Array) -> Array:
    return point_to_point_seconds(message, topology=replica.topology, efficiency=replica.efficiency, across=True)


def dispatch_bytes(ffn: Replica) -> float:
    """Bytes per hidden element on the way to the experts: their 8-bit arithmetic, or bf16."""
    part = Part.EXPERTS if ffn.has_experts else Part.FFN
    return ACTIVATION_BYTES if ffn.formats[part].math in ("bf16", "fp16") else 1.0


def worker_reach(model: Model, workers: Array) -> Array:
    """Chance that a token visits a given worker: 1 - C(E - E/n, k)/C(E, k), averaged over the layers."""
    total = 0.0 * floats(workers)
    for group in model.groups:
        ffn = group.layer.ffn
        if isinstance(ffn, MoeFfn):
            chance = 1.0 - np.prod(
                [np.maximum(1.0 - ffn.experts / workers / (ffn.experts - i), 0.0) for i in range(ffn.top_k)], axis=0
            )
        else:
            chance = np.ones_like(floats(workers))
        total = total + group.count * chance
    return np.asarray(total / len(model.layers))


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
