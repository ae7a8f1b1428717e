"""Dense matrix products of a layer, the head, and the kernels between them that only move activations."""

from __future__ import annotations

import numpy as np

from planner.architecture.model import Attention, LatentAttention, Layer, Linear, MoeFfn, Part, Shard
from planner.architecture.precision import WeightFormat
from planner.cost.elementwise import elementwise_seconds
from planner.cost.gemm import gemm_seconds
from planner.serving.context import ACTIVATION_BYTES, own_tokens
from planner.serving.forward import Pass
from planner.serving.layout import Array, Layouts

_BY_BLOCK = "fp8_block"


def add_linears(
    p: Pass, linears: tuple[Linear, ...], name: str, times: Array, kv_heads: int = 1, *, quantised: bool = False
) -> None:
    """Book weight matrices under ``name``, fused where they read the same input; ``quantised`` where the hidden states
    arrive in the type of the products."""
    for inputs, outputs, part, copies in _fused(linears, p.layouts, kv_heads):
        form = p.replica.formats[part]
        arrives = quantised and np.all(inputs == float(p.hidden))
        seconds = gemm_seconds(
            p.tokens,
            outputs,
            inputs,
            math=form.math,
            weight_bytes=form.bytes_per_weight,
            quantise_activations=form.math == _BY_BLOCK and not arrives,
            **p.common,
        )
        p.add(name, seconds, times * copies)
        _quantised(p, form, times)


def _quantised(p: Pass, form: WeightFormat, times: Array) -> None:
    """The kernel that brings the input of a product to block-scaled 8 bits (one scale for 128 elements of a token).

    It starts on its own: 1.4 to 2.4 us in a captured graph on an H200 (benchmarks/data/kernels_h200.csv), plus
    what the next one waits. Per-tensor and 4-bit scales are fused into the norm or activation before; what routed
    experts quantise is in the measured times of their operator.
    """
    if form.math == _BY_BLOCK:
        p.ledger.add("kernel gaps", np.asarray(p.replica.engine.quantise_gap), times)


def add_head(p: Pass) -> None:
    """LM head on the tokens that are sampled: of every decode all that are checked, and one per finished prompt."""
    sampled = p.sampled + np.where(p.chunk > 0, p.prompts, 0.0)
    form = p.replica.formats[Part.HEAD]
    sampled = own_tokens(sampled, p.cp) if p.layouts.long else sampled
    vocab = p.replica.model.vocab / p.layouts.tp
    seconds = gemm_seconds(sampled, vocab, p.hidden, math=form.math, weight_bytes=form.bytes_per_weight, **p.common)
    p.add("lm head", seconds)


def add_norms(p: Pass, layer: Layer, times: Array) -> None:
    """Kernels that only move activations: norms, rotary embedding and KV write, the product with the gate.

    Each half of a layer reads and writes the residual stream and the normalised copy, 4 passes over the hidden
    states of all ranks; the rest is cut over tp.
    """
    halves = (layer.mixer is not None) + (layer.ffn is not None)
    size = halves * 4 * ACTIVATION_BYTES * p.hidden + _activation_bytes(p, layer)
    p.add("norms", elementwise_seconds(size * p.tokens, **p.common), times)


def _activation_bytes(p: Pass, layer: Layer) -> Array:
    """Bytes per token between matrix products on one rank: queries are rotated in place, keys and values read and
    cached, a gated block reads two halves and writes one; routed experts book theirs apart.
    """
    m, tp, moved = layer.mixer, p.layouts.tp, 0.0 * p.layouts.tp
    cached = ACTIVATION_BYTES + p.replica.kv_bytes
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
