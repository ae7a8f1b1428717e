"""Gemma 4: wider global heads, keys that serve as values, shared caches, experts beside a dense block."""

from __future__ import annotations

from dataclasses import replace

from planner.architecture.families.attention import grouped, head_dim, window_of
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import dense, experts
from planner.architecture.fields import Fields
from planner.architecture.model import Attention, DenseFfn, Ffn, Model


def attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of a layer: global ones have a head width and, with ``attention_k_eq_v``, KV heads of
    their own."""
    window = window_of(fields, family, index)
    heads, kv_heads, width = fields.count("heads"), fields.count("kv_heads"), head_dim(fields)
    same = window is None and fields.flag("attention_k_eq_v")
    if window is None:
        width = fields.optional("global_head_dim") or width
        kv_heads = (fields.optional("num_global_key_value_heads") if same else None) or kv_heads
    built = grouped(fields, family, heads, kv_heads, width, window)
    reuses = _reuses_cache(fields, index)
    norms = width if reuses else built.small_parameters
    return replace(built, value_projection=not same, reuses_cache=reuses, small_parameters=norms)


def ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of a layer: dense, beside experts where ``enable_moe_block`` is set."""
    block = dense(fields, family, index)
    if fields.flag("enable_moe_block"):
        return replace(experts(fields, family), shared_width=block.width)
    doubled = fields.flag("use_double_wide_mlp") and _reuses_cache(fields, index)
    return DenseFfn(2 * block.width) if doubled else block


def finish(fields: Fields, model: Model) -> Model:
    """Add what stands beside the layers: per-layer input embeddings, a scale per layer, norms around
    experts."""
    per_layer = fields.count("hidden_size_per_layer_input", 256, minimum=0)
    layers = len(model.layers)
    table = fields.count("vocab_size_per_layer_input", 262_144, minimum=0) * layers * per_layer
    shared = table + model.hidden * layers * per_layer + per_layer if per_layer else 0
    each = 1 + (2 * model.hidden * per_layer + model.hidden if per_layer else 0)
    if fields.flag("enable_moe_block"):
        each += 4 * model.hidden + fields.count("experts")
    return replace(
        model,
        layers=tuple(replace(layer, small_parameters=layer.small_parameters + each) for layer in model.layers),
        extra_parameters=model.extra_parameters + shared,
    )


def _reuses_cache(fields: Fields, index: int) -> bool:
    return index >= fields.count("layers") - (fields.optional("num_kv_shared_layers") or 0)
