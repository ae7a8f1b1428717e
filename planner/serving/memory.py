"""Bytes that one GPU of a replica holds: weights, KV cache and state, activations, engine reserve.

All results are per GPU of the fullest pipeline stage and broadcast over layouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.architecture.linears import expert_linears, ffn_linears, mixer_linears
from planner.architecture.model import Attention, LatentAttention, Layer, Linear, MoeFfn, Part, Shard
from planner.architecture.state import layer_cache_bytes, layer_state_bytes
from planner.serving.iteration import ACTIVATION_BYTES, draft_layouts
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica

# Hidden-width copies alive at once in a forward pass (residual, normalised, projections, all-reduce buffer), bf16.
_LIVE_COPIES = 6.0
_LOGIT_BYTES = 4.0
_CACHE_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the fullest GPU. ``request`` is what one request holds in KV cache and state, ``longest`` what it holds
    when it ends; ``slots`` how many requests fit on one attention rank (0: not even one, negative room included).
    """

    weights: Array
    activations: Array
    capacity: float
    room: Array
    request: Array
    longest: Array
    slots: Array

    def rows(self, kept: ArrayLike, count: int) -> Memory:
        """Some of ``count`` rows, flat."""

        def pick(values: Array) -> Array:
            flat = np.ravel(values)
            every = np.broadcast_to(flat if flat.size > 1 else flat[0], (count,))
            return np.asarray(every[np.asarray(kept, dtype=int)])

        return Memory(
            pick(self.weights), pick(self.activations), self.capacity, pick(self.room), pick(self.request),
            pick(self.longest), pick(self.slots),
        )  # fmt: skip

    @property
    def fits(self) -> Array:
        """Whether the weights and at least one request fit."""
        return np.asarray(self.slots >= 1)


def memory(replica: Replica, layouts: Layouts, lengths: Lengths, *, together: bool = False) -> Memory:
    """Memory budget for requests of the asked lengths.

    An engine that takes KV blocks as requests grow holds the mean context of requests at all stages of their life,
    isl + osl/2 (``together``: requests that grow in step need their full length at the end); one that reserves holds
    isl + osl. Whatever it holds on average, one request must fit until it ends.

    room = utilisation * usable - weights - activations - reserve (or utilisation of what weights leave, for engines
    that count so); slots = room / request. Every stage holds its layers' share of the cache of all micro-batches.
    """
    if replica.stages:
        parts = [memory(stage.replica, stage.layouts, lengths, together=together) for stage in replica.stages]
        return min(parts, key=lambda part: (float(part.slots.min()), float(part.room.min())))
    engine, capacity = replica.engine, replica.accelerator.memory
    weights = weight_bytes_per_gpu(replica, layouts) + draft_weight_bytes_per_gpu(replica, layouts)
    activations = activation_bytes_per_gpu(replica, layouts)
    if engine.of_free:
        room = engine.utilization * (capacity - weights - activations - engine.reserve)
    else:
        room = utilization(replica, weights) * capacity - weights - activations - engine.reserve
    tokens = lengths.decode_context if engine.grows and not together else lengths.total
    request = request_bytes_per_gpu(replica, layouts, tokens)
    longest = request_bytes_per_gpu(replica, layouts, lengths.total)
    slots = np.where(room >= longest, np.floor(np.maximum(room, 0.0) / request), 0.0)
    slots = np.minimum(slots, most_sequences(replica, layouts))
    return Memory(weights, activations, capacity, room, request, longest, slots)


def most_sequences(replica: Replica, layouts: Layouts) -> Array:
    """Running sequences of an attention rank that the engine allows, whatever the memory.

    Where tokens are sent to experts of other ranks, the buffers of an iteration bound them, with all drafted tokens.
    """
    engine = replica.engine
    if not engine.decode_tokens or not replica.has_experts:
        return np.asarray(engine.max_sequences)
    sent = np.floor(engine.decode_tokens / replica.verified)
    return np.where(layouts.send_to_experts, np.minimum(engine.max_sequences, sent), engine.max_sequences)


def utilization(replica: Replica, weights: Array) -> Array:
    """Share of memory to give the engine: its default; more, up to a ceiling, if weights leave the cache below 15 %."""
    engine = replica.engine
    return np.clip(weights / replica.accelerator.memory + _CACHE_SHARE, engine.utilization, engine.utilization_ceiling)


def weight_bytes_per_gpu(replica: Replica, layouts: Layouts) -> Array:
    """Weights on the fullest GPU: cut matrices / tp, experts / (ep * expert_tp), layers / pp, replicated parts
    whole.
    """
    total = _layers_bytes(replica, layouts)
    stages = np.ceil(len(replica.model.layers) / layouts.pp) / len(replica.model.layers)
    model = replica.model
    table = model.vocab * model.hidden / layouts.tp
    embedding = table * replica.formats[Part.EMBEDDING].bytes_per_weight * replica.embeds
    head = table * replica.formats[Part.HEAD].bytes_per_weight * replica.samples
    # The first stage holds the embedding, the last the head; without stages one GPU holds both, tied ones once.
    tied = model.tied_embeddings and replica.embeds and replica.samples
    ends = np.where(layouts.pp > 1, np.maximum(embedding, head), head if tied else embedding + head)
    positions = model.positions * model.hidden * replica.formats[Part.EMBEDDING].bytes_per_weight * replica.embeds
    return np.asarray(total * stages + ends + positions)


def draft_weight_bytes_per_gpu(replica: Replica, layouts: Layouts) -> Array:
    """What a draft adds on a GPU: its layers, the matrix that folds hidden states, and the tables that it does not
    share with the target; nothing for n-grams."""
    speculation = replica.speculation
    if speculation is None or speculation.draft is None:
        return np.zeros(1)
    draft, split = speculation.draft, draft_layouts(speculation, layouts)
    model = draft.model
    table = model.vocab * model.hidden / split.tp
    fold = speculation.joined * model.hidden * model.hidden / split.tp * ACTIVATION_BYTES
    embedding = table * draft.formats[Part.EMBEDDING].bytes_per_weight * speculation.own_embedding
    head = table * draft.formats[Part.HEAD].bytes_per_weight * speculation.own_head
    return np.asarray(_layers_bytes(draft, split) + fold + embedding + head)


def _layers_bytes(replica: Replica, layouts: Layouts) -> Array:
    """Weights of all layers on a GPU that would hold every one of them."""
    total = np.zeros(np.broadcast(layouts.tp, layouts.pp).shape)
    for group in replica.groups:
        total = total + group.count * _layer_weight_bytes(replica, group.layer, layouts)
    return total


def _layer_weight_bytes(replica: Replica, layer: Layer, layouts: Layouts) -> Array:
    hidden = replica.model.hidden
    kv_heads = layer.mixer.kv_heads if isinstance(layer.mixer, Attention) else 1
    total = np.zeros(1)
    for linear in (*mixer_linears(layer.mixer, hidden), *ffn_linears(layer.ffn, hidden)):
        size = linear.parameters * replica.formats[linear.part].bytes_per_weight
        total = total + size / ways(linear, layouts, kv_heads)
    if isinstance(layer.ffn, MoeFfn):
        one = sum(linear.parameters for linear in expert_linears(layer.ffn, hidden))
        copies = np.where(layouts.ep > 1, float(replica.engine.redundant_experts), 0.0)
        held = (np.ceil(layer.ffn.experts / layouts.ep) + copies) / layouts.expert_tp
        total = total + one * held * replica.formats[Part.EXPERTS].bytes_per_weight
    return total


def ways(linear: Linear, layouts: Layouts, kv_heads: int) -> Array:
    """Into how many pieces tensor parallelism cuts a matrix."""
    match linear.shard:
        case Shard.COLUMN | Shard.ROW:
            return layouts.tp
        case Shard.KV:
            return np.minimum(layouts.tp, float(kv_heads))
        case _:
            return np.ones_like(layouts.tp)


def activation_bytes_per_gpu(replica: Replica, layouts: Layouts) -> Array:
    """Working set of one iteration of ``chunk_tokens``: live hidden copies, the widest block, sampled logits."""
    model, tokens = replica.model, replica.engine.chunk_tokens
    widest = 0.0 * layouts.tp
    for group in replica.groups:
        for linear in (
            *mixer_linears(group.layer.mixer, model.hidden),
            *ffn_linears(group.layer.ffn, model.hidden),
        ):
            widest = np.maximum(widest, linear.outputs / ways(linear, layouts, 1))
        if isinstance(group.layer.ffn, MoeFfn):
            width = group.layer.ffn.width * group.layer.ffn.top_k * (2 if group.layer.ffn.gated else 1)
            widest = np.maximum(widest, width * layouts.token_groups / (layouts.ep * layouts.expert_tp))
    hidden = (_LIVE_COPIES * model.hidden + widest) * tokens * 2.0 / layouts.cp
    logits = min(replica.engine.max_sequences, 512.0) * model.vocab / layouts.tp * _LOGIT_BYTES * replica.samples
    return np.asarray(hidden + logits)


def request_bytes_per_gpu(replica: Replica, layouts: Layouts, tokens: ArrayLike) -> Array:
    """KV cache and fixed state of one request of ``tokens`` on one GPU.

    Grouped KV heads are cut over tp until each rank holds one, latent caches are held whole by every rank, and each
    pipeline stage holds its layers; tokens are rounded up to whole blocks. A draft keeps a cache of its own, and
    recurrent layers one state for every position that is checked.
    """
    speculation = replica.speculation
    if speculation is not None and speculation.draft is not None:
        drafted = request_bytes_per_gpu(speculation.draft, draft_layouts(speculation, layouts), tokens)
        return _target_bytes(replica, layouts, tokens) + drafted
    return _target_bytes(replica, layouts, tokens)


def _target_bytes(replica: Replica, layouts: Layouts, tokens: ArrayLike) -> Array:
    block = replica.engine.block_tokens
    length = np.ceil(floats(tokens) / block) * block
    total = np.zeros(1)
    for group in replica.groups:
        cache = layer_cache_bytes(group.layer, length, replica.kv_bytes)
        state = layer_state_bytes(group.layer) * replica.verified
        total = total + group.count * (cache / _cache_ways(group.layer, layouts) + state / layouts.tp)
    layers = len(replica.model.layers)
    stages = np.ceil(layers / layouts.pp) / layers
    return np.asarray(np.maximum(total * stages, 1.0))


def _cache_ways(layer: Layer, layouts: Layouts) -> Array:
    if isinstance(layer.mixer, Attention):
        return np.minimum(layouts.tp, float(layer.mixer.kv_heads)) * layouts.cp
    if isinstance(layer.mixer, LatentAttention):
        return np.ones_like(layouts.tp) * layouts.cp
    return layouts.tp
