"""Feed-forward workers of an attention-FFN split: where experts lie, which tokens reach a GPU, seconds of the blocks.

n workers of g GPUs hold the feed-forward blocks. Experts are spread over as many workers as there are experts for, in
``ep`` groups each, cut over g/ep GPUs inside a group; where workers are left, they hold further copies and share the
tokens. Dense blocks and shared experts are copied into every worker and cut over its GPUs, so that a token needs one
worker for them; a dense model that does not fit one worker is cut over several.

A token visits a group of experts with probability P(c) = 1 - C(E - E/c, k)/C(E, k), c groups in a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.architecture.linears import expert_linears
from planner.architecture.model import DenseFfn, Layer, Model, MoeFfn, Part
from planner.cost.moe import experts_seconds, loaded_rank
from planner.serving.halves import each_layer, ffn_half
from planner.serving.iteration import Work, iteration_ledger
from planner.serving.layout import Array, Layout, Layouts, distinct, floats
from planner.serving.legality import ShapeProblem, shape_problem
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica


def worker_problem(model: Model, tp: int, ep: int) -> ShapeProblem | None:
    """Why feed-forward workers of max(tp, ep) GPUs cannot be built, or None. ``model`` is a feed-forward half.

    Experts need not divide by the workers: the fullest one then holds one more.
    """
    gpus, routed = max(tp, ep), [x for x in _blocks(model) if isinstance(x, MoeFfn)]
    few = min((x.experts for x in routed), default=ep)
    if routed and ep > few:
        return ShapeProblem("more expert groups than experts", f"{ep} experts", f"{few}")
    for experts in routed:
        sharing = gpus // ep
        if gpus % ep or experts.width % sharing:
            need = f"ffn_tp {gpus} divisible by ffn_ep {ep} and a width divisible by {sharing}"
            return ShapeProblem("expert width does not divide", need, f"{experts.width}")
    whole = replace(model, layers=each_layer(model, _only_dense))
    return shape_problem(whole, Layout(gpus, ep=1 if routed else ep))


def _blocks(model: Model) -> Iterator[DenseFfn | MoeFfn | None]:
    return (layer.ffn for layer in model.layers)


def _dense_part(ffn: DenseFfn | MoeFfn | None) -> DenseFfn | None:
    """What of a block every token passes: all of a dense one, the shared expert of a routed one."""
    if isinstance(ffn, MoeFfn):
        return DenseFfn(ffn.shared_width, gated=ffn.gated, bias=ffn.bias) if ffn.shared_width else None
    return ffn


@dataclass(frozen=True, slots=True)
class FfnWorkers:
    """``count`` workers of ``gpus`` GPUs with ``ep`` expert groups each, [rows]; ``sharing`` of them hold one copy."""

    replica: Replica
    count: Array
    gpus: Array
    ep: Array
    sharing: Array

    @classmethod
    def of(cls, replica: Replica, count: Array, gpus: Array, ep: Array) -> FfnWorkers:
        """Spread experts as far as they go; cut dense blocks over as few workers as the memory asks for."""
        alone = cls(replica, count, gpus, ep, np.ones_like(count))
        experts = min((x.experts for x in _blocks(replica.model) if isinstance(x, MoeFfn)), default=0)
        ascending = range(1, int(count.max(initial=1)) + 1)
        sharing = np.ones_like(count)
        settled = np.zeros(count.shape, dtype=bool)
        for c in ascending:
            divides = count % c == 0
            if experts:
                sharing = np.where(divides & (c * ep <= experts), float(c), sharing)
                continue
            fits = np.broadcast_to(replace(alone, sharing=np.full_like(count, c)).memory(_SHORT).fits, count.shape)
            sharing = np.where(divides & ~settled, float(c), sharing)
            settled |= divides & fits
        return replace(alone, sharing=sharing)

    @property
    def layouts(self) -> Layouts:
        """One copy as the layout of a replica: workers are its data-parallel ranks, or all of it is tensor parallel."""
        ones = np.ones_like(self.count)
        if self.replica.has_experts:
            return Layouts(self.gpus, self.sharing, ones, self.sharing * self.ep)
        return Layouts(self.gpus * self.sharing, ones, ones, ones)

    def memory(self, lengths: Lengths) -> Memory:
        """Budget of one GPU, with its blocks of a draft."""
        return memory(ffn_half(self.replica), self.layouts, lengths)

    def seconds(self, tokens: Array) -> Array:
        """Seconds of all blocks for a micro-batch of ``tokens`` on the busiest GPU, gaps between kernels included.

        Norms, the router and the quantisation of what travels are the attention side's.
        """
        if tokens.ndim < 2:
            return self._seconds(tokens)
        # A table of many splits: rows with the same workers and tokens ask the same.
        kept, like = distinct(self.count, self.gpus, self.ep, self.sharing, tokens)
        few = FfnWorkers(self.replica, *(x[kept] for x in (self.count, self.gpus, self.ep, self.sharing)))
        return np.broadcast_to(few._seconds(tokens[kept]), (len(kept), tokens.shape[1]))[like]

    def _seconds(self, tokens: Array) -> Array:
        half = ffn_half(self.replica.drafting_nothing)
        dense = replace(half, model=replace(half.model, layers=each_layer(half.model, _only_dense)))
        cut = np.ones_like(self.count) if half.has_experts else self.sharing
        layouts = Layouts(self.gpus * cut, *(np.ones_like(self.count) for _ in range(3)))
        work = Work(sequences=tokens * cut / self.count, context=1.0, quantised=True)
        total = np.asarray(iteration_ledger(dense, layouts, work).seconds["ffn"])
        for group in half.groups:
            total = total + group.count * half.layer_gap(group.layer)
            if isinstance(group.layer.ffn, MoeFfn):
                total = total + group.count * self._experts(group.layer.ffn, tokens)
        return total

    def _experts(self, ffn: MoeFfn, tokens: Array) -> Array:
        """Seconds of the routed experts on the busiest GPU; groups that hold unequal numbers wait for the fullest."""
        replica, hidden = self.replica, self.replica.model.hidden
        form, own = replica.formats[Part.EXPERTS], tokens * self.sharing / self.count
        groups = ffn.experts / np.ceil(ffn.experts / (self.sharing * self.ep))
        measured = replica.engine.expert_imbalance or None
        rows, busy = loaded_rank(float(ffn.experts), float(ffn.top_k), own, groups, imbalance=measured)
        sharers = self.gpus / self.ep
        seconds = experts_seconds(
            own * reach(ffn, groups), float(ffn.latent or hidden), float(ffn.width), float(ffn.experts),
            float(ffn.top_k), tp=sharers, gated=ffn.gated, math=form.math, weight_bytes=form.bytes_per_weight,
            rows=rows, active=busy, accelerator=replica.accelerator, efficiency=replica.efficiency, launch=0.0,
        )  # fmt: skip
        one = sum(linear.parameters for linear in expert_linears(ffn, hidden)) * form.bytes_per_weight
        floor = busy * one / sharers / replica.accelerator.memory_bandwidth
        grouped = np.maximum(seconds * replica.engine.expert_slowdown, floor)
        return np.where(ffn.experts <= groups, self._one_expert(ffn, rows), grouped)

    def _one_expert(self, ffn: MoeFfn, rows: Array) -> Array:
        """Seconds of ``rows`` tokens through the only expert of a group: plain products, nothing is permuted."""
        half = ffn_half(self.replica.drafting_nothing)
        block = Layer(None, DenseFfn(ffn.width, gated=ffn.gated, bias=ffn.bias))
        alone = replace(half, model=replace(half.model, layers=(block,)))
        layouts = Layouts(self.gpus / self.ep, *(np.ones_like(self.count) for _ in range(3)))
        work = Work(sequences=rows, context=1.0, quantised=True)
        return np.asarray(iteration_ledger(alone, layouts, work).seconds["ffn"])

    def visits(self) -> tuple[Array, Array]:
        """Workers that a token is sent to, and tokens of a micro-batch of one that a GPU works on, mean over layers."""
        sent, held = 0.0 * floats(self.count), 0.0 * floats(self.count)
        for group in self.replica.groups:
            ffn, share = group.layer.ffn, group.count / len(self.replica.model.layers)
            if isinstance(ffn, MoeFfn):
                sent = sent + share * self.sharing * reach(ffn, self.sharing)
                held = held + share * reach(ffn, self.sharing * self.ep) * self.sharing / self.count
            else:
                cut = np.ones_like(self.count) if self.replica.has_experts else self.sharing
                sent, held = sent + share * cut, held + share * cut / self.count
        return sent, held


_SHORT = Lengths(1.0, 1.0)


def _only_dense(layer: Layer) -> Layer:
    return Layer(None, _dense_part(layer.ffn))


def reach(ffn: MoeFfn, groups: Array) -> Array:
    """Chance that a token visits a given one of ``groups`` equal groups of experts: 1 - C(E - E/c, k)/C(E, k)."""
    missed = [np.maximum(1.0 - ffn.experts / groups / (ffn.experts - i), 0.0) for i in range(ffn.top_k)]
    return np.asarray(1.0 - np.prod(missed, axis=0))
