"""DeepSeek-V4: one shared key/value head with a window, and a compressed cache of the whole context beside
it.

Shapes follow the modelling code in transformers 5.23: compressed sparse attention keeps an entry for 4 tokens
and attends the ``index_topk`` best, heavily compressed attention keeps one for 128 and attends them all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.architecture.families.attention import grouped
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import experts
from planner.architecture.families.recurrent import linear
from planner.architecture.fields import Fields
from planner.architecture.model import Attention, CompressedContext, Ffn, Model, Shard
from planner.errors import InputError

_RATES: Final = {
    "compressed_sparse_attention": 4,
    "heavily_compressed_attention": 128,
    "sliding_attention": 0,
}


def attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of a layer: queries and outputs of low rank, one KV entry of ``head_dim``, sinks."""
    heads, width, rank = fields.count("heads"), fields.count("head_dim"), fields.count("q_lora_rank")
    plain = grouped(fields, family, heads, fields.count("kv_heads", 1), width, fields.count("window", 128))
    rate = _rate(fields, index)
    compressed = _compressed(fields, rate) if rate else None
    return replace(
        plain,
        query_rank=rank,
        output_rank=fields.count("o_lora_rank"),
        output_groups=fields.count("o_groups"),
        values_are_keys=True,
        compressed=compressed,
        small_parameters=rank + width + heads + (_compressor_extras(fields, compressed) if compressed else 0),
    )


def ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build experts; the first layers choose them by a table of token ids, without score correction."""
    hashed = index < fields.count("num_hash_layers", 3, minimum=0)
    types = fields.items("mlp_layer_types", fields.count("layers"))
    if types is not None:
        hashed = types[index] == "hash_moe"
    return replace(experts(fields, family), router_bias=not hashed)


def finish(fields: Fields, model: Model) -> Model:
    """Add hyper-connections: two mixers of the ``hc_mult`` residual streams in each layer, and one before the
    head."""
    streams, hidden = fields.count("hc_mult", 4), model.hidden
    weights = (2 + streams) * streams
    each = 2 * (weights * streams * hidden + weights + 3)
    head = streams * streams * hidden + streams + 1
    return replace(
        model,
        layers=tuple(replace(layer, small_parameters=layer.small_parameters + each) for layer in model.layers),
        extra_parameters=model.extra_parameters + head,
    )


def _rate(fields: Fields, index: int) -> int:
    """Read how many tokens an entry of the layer stands for; 0 is a window only."""
    layers = fields.count("layers")
    ratios = fields.items("compress_ratios", layers)
    if ratios is not None:
        ratio = ratios[index]
        if ratio not in _RATES.values():
            raise InputError(f"{fields.where}: compress_ratios has {ratio!r}", hint="0, 4 or 128")
        return int(ratio)  # type: ignore[call-overload,no-any-return]
    types = fields.items("layer_types", layers)
    if types is None:  # the class alternates behind two heavily compressed layers
        return 128 if index < 2 or index % 2 == 0 else 4
    rates = fields.inner("compress_rates")
    kind = str(types[index])
    if kind not in _RATES:
        raise InputError(f"{fields.where}: unknown layer type {kind!r}", hint=f"one of {', '.join(_RATES)}")
    return rates.count(kind, _RATES[kind], minimum=0) if rates else _RATES[kind]


def _compressed(fields: Fields, rate: int) -> CompressedContext:
    hidden, width = fields.count("hidden"), fields.count("head_dim")
    if rate > 4:
        return CompressedContext(rate, projections=(linear("compress", hidden, 2 * width, Shard.REPLICATED),))
    index_heads, index_dim = fields.count("index_n_heads"), fields.count("index_head_dim")
    return CompressedContext(
        rate,
        fields.count("index_topk"),
        index_heads,
        index_dim,
        (
            linear("compress", hidden, 4 * width, Shard.REPLICATED),
            linear("index_k", hidden, 4 * index_dim, Shard.REPLICATED),
            linear("index_q", fields.count("q_lora_rank"), index_heads * index_dim, Shard.REPLICATED),
            linear("index_weight", hidden, index_heads, Shard.REPLICATED),
        ),
    )


def _compressor_extras(fields: Fields, compressed: CompressedContext) -> int:
    """Count position biases and norms of the compressors; sparse layers overlap their groups, so twice the
    width."""
    width = fields.count("head_dim")
    overlap = 2 if compressed.top_k else 1
    return sum(overlap * compressed.ratio * each + each for each in (width, compressed.index_dim) if each)
