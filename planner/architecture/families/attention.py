"""Softmax attention, grouped or latent, from config fields; which layers see a window."""

from __future__ import annotations

from planner.architecture.families.family import Family, WindowRule, decide
from planner.architecture.fields import Fields
from planner.architecture.model import Attention, LatentAttention, SparseIndexer
from planner.errors import InputError


def head_dim(fields: Fields) -> int:
    """Read the width of a head; absent, it is hidden over heads, which must divide. Raises InputError."""
    given = fields.optional("head_dim", minimum=1)
    if given:
        return given
    hidden, heads = fields.count("hidden"), fields.count("heads")
    if hidden % heads:
        raise InputError(
            f"{fields.where}: {heads} heads do not divide the hidden size {hidden}",
            hint="add the field head_dim",
        )
    return hidden // heads


def grouped_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build grouped-query attention of layer ``index``; kv heads default to all heads."""
    heads, width = fields.count("heads"), head_dim(fields)
    return grouped(fields, family, heads, fields.count("kv_heads", heads), width, window_of(fields, family, index))


def grouped(fields: Fields, family: Family, heads: int, kv_heads: int, width: int, window: int | None) -> Attention:
    """Build grouped-query attention from its sizes and the conventions of the family. Raises InputError."""
    if heads % kv_heads:
        raise InputError(
            f"{fields.where}: {kv_heads} key/value heads do not divide {heads} heads", hint="check the config"
        )
    bias = decide(fields, family.qkv_bias)
    scales = {"": 0, "head": 2 * width, "full": (heads + kv_heads) * width}[family.qk_norm]
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        value_dim=width,
        window=window,
        query_bias=bias,
        kv_bias=bias,
        output_bias=decide(fields, family.output_bias),
        small_parameters=scales + (heads if family.sinks else 0),
    )


def latent_attention(fields: Fields, family: Family, index: int, value_dim: int | None = None) -> LatentAttention:
    """Build multi-head latent attention, with the sparse indexer where the config has one.

    ``value_dim`` is what the class assumes for the width of values; without it the config must say.
    """
    query_rank = fields.optional("q_lora_rank") or 0
    kv_rank = fields.count("kv_lora_rank")
    indexer = _indexer(fields, index)
    norm = 0 if indexer is None or indexer.shared else 2 * indexer.head_dim
    return LatentAttention(
        heads=fields.count("heads"),
        query_rank=query_rank,
        kv_rank=kv_rank,
        nope_dim=fields.count("qk_nope_head_dim"),
        rope_dim=fields.count("qk_rope_head_dim"),
        value_dim=fields.count("value_dim", value_dim),
        indexer=indexer,
        small_parameters=query_rank + kv_rank + norm,
    )


def _indexer(fields: Fields, index: int) -> SparseIndexer | None:
    """Read the DSA indexer; GLM-5.2 lets some layers share the choice of the layer before."""
    top_k = fields.optional("index_topk", minimum=1)
    if top_k is None:
        return None
    shared = _shares_index(fields, index)
    return SparseIndexer(fields.count("index_n_heads"), fields.count("index_head_dim"), top_k, shared=shared)


def _shares_index(fields: Fields, index: int) -> bool:
    """Say whether a layer takes the choice of the layer before: by a list of kinds, a pattern of F and S, or each
    n-th layer choosing anew."""
    types = fields.items("indexer_types", fields.count("layers"))
    if types is not None:
        return types[index] == "shared"
    pattern = fields.text("index_topk_pattern")
    if pattern:
        if len(pattern) < fields.count("layers") or set(pattern) - set("FS"):
            raise InputError(f"{fields.where}: index_topk_pattern is not understood", hint="F or S for each layer")
        return pattern[index] == "S"
    offset = fields.count("index_skip_topk_offset", 2, minimum=0)
    return max(index - offset + 1, 0) % max(fields.count("index_topk_freq", 1, minimum=0), 1) != 0


def window_of(fields: Fields, family: Family, index: int) -> int | None:
    """Return how many tokens layer ``index`` sees, or None for all: ``layer_types`` first, then the family's
    rule."""
    window = fields.optional("window", minimum=1)
    types = fields.items("layer_types", fields.count("layers"))
    if not fields.flag("use_sliding_window", True):
        return None
    if window is None and types is not None and types[index] == "sliding_attention":
        raise fields.missing("window")
    if window is None:
        return None
    if types is not None:
        return window if types[index] in ("sliding_attention", "chunked_attention") else None
    return window if family.windows is None or family.windows(fields, index) else None


def every(period: int) -> WindowRule:
    """Make a rule: windows everywhere but in each ``period``-th layer, unless the config gives its own
    period."""

    def rule(fields: Fields, index: int) -> bool:
        return (index + 1) % fields.count("sliding_window_pattern", period) != 0

    return rule


def beyond_max_window_layers(fields: Fields, index: int) -> bool:
    """Follow Qwen2: the first ``max_window_layers`` see everything."""
    return index >= fields.count("max_window_layers", minimum=0)
