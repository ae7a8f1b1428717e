"""Attention cores and recurrent state: what a layer does with what it remembers of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.architecture.model import Attention, LatentAttention, Layer, LinearAttention, Mamba
from planner.architecture.state import attended_tokens
from planner.cost.attention import (
    attention_decode_seconds,
    attention_prefill_seconds,
    indexer_seconds,
    latent_decode_seconds,
    latent_prefill_seconds,
)
from planner.cost.elementwise import recurrent_seconds
from planner.serving.context import ACTIVATION_BYTES, gather_seconds, merge_seconds, own_piece
from planner.serving.forward import Pass
from planner.serving.layout import Array


def add_mixer(p: Pass, layer: Layer, times: Array) -> None:
    """Book the mixer of a layer, ``times`` over."""
    match layer.mixer:
        case Attention():
            _attention(p, layer.mixer, times)
        case LatentAttention():
            _latent(p, layer.mixer, times)
        case LinearAttention() | Mamba():
            _recurrent(p, layer.mixer, times)


def _attention(p: Pass, a: Attention, times: Array) -> None:
    if a.window == 0:
        return  # cross-attention to images: not part of text serving
    heads = np.ceil(a.heads / p.layouts.tp)
    kv_heads = np.maximum(1.0, a.kv_heads / p.layouts.tp)
    shape = (heads, kv_heads, float(a.head_dim), float(a.value_dim))
    options: dict[str, Any] = {"kv_bytes": p.replica.kv_bytes, **p.common}
    if p.decoding:
        read = attended_tokens(a, p.context)
        read = read / p.cp
        sequences, queries = _checking(p, a)
        seconds = attention_decode_seconds(sequences, read, *shape, queries=queries, **options)
        _merge(p, times, heads, a.head_dim, a.value_dim)
        cache = sequences * read * kv_heads * ((a.head_dim + a.value_dim) * p.replica.kv_bytes)
        p.add("attention decode", seconds, times, moved=cache)
    if p.prefilling:
        query, prefix = own_piece(p.chunk / p.prompts, p.prefix, p.cp)
        seconds = attention_prefill_seconds(
            query, prefix, p.prompts, *shape, math=_prefill_math(p), window=_prefill_window(p, a),
            **options,
        )  # fmt: skip
        p.add("attention prefill", seconds, times)
        _gather(p, times, kv_heads * (a.head_dim + a.value_dim) * p.replica.kv_bytes, seconds, a.window)
    if a.indexer is not None and not a.indexer.shared:
        _indexer(p, a.indexer.heads, a.indexer.head_dim, 1.0, times)
    if a.compressed is not None and a.compressed.index_dim:
        _indexer(p, a.compressed.index_heads, a.compressed.index_dim, a.compressed.ratio, times)


def _prefill_math(p: Pass) -> str:
    """Math of a prompt's attention: 8 bit where the engine computes in the type of an 8-bit cache."""
    narrow = p.replica.engine.cache_math and p.replica.kv_bytes < ACTIVATION_BYTES
    return "fp8" if narrow else "bf16"


def _checking(p: Pass, a: Attention | LatentAttention) -> tuple[Array, float]:
    """Sequences and queries of each that the decode kernel sees: the tokens of a draft share one read of the cache,
    but not where every query chooses its own part of it."""
    chooses = a.indexer is not None or (isinstance(a, Attention) and a.compressed is not None)
    return (p.decoded, 1.0) if chooses else (p.decodes, p.width)


def _prefill_window(p: Pass, a: Attention) -> float | Array | None:
    """Keys that a prompt token attends: all, a window, or what a selector leaves of the mean context."""
    if a.compressed is not None or a.indexer is not None:
        return attended_tokens(a, p.prefix + p.chunk / p.prompts / 2)
    return None if a.window is None else float(a.window)


def _indexer(p: Pass, heads: int, width: int, ratio: float, times: Array) -> None:
    """Scores of a sparse-attention selector over the context, ``ratio`` tokens to an entry."""
    shape = (float(heads), float(width))
    seconds = indexer_seconds(p.width, p.context / ratio / p.cp, p.decodes, *shape, **p.common)
    if p.prefilling:
        query, prefix = own_piece(p.chunk / p.prompts, p.prefix, p.cp)
        seconds = seconds + indexer_seconds(query, prefix / ratio, p.prompts, *shape, **p.common)
    p.add("sparse indexer", seconds, times)


def _latent(p: Pass, a: LatentAttention, times: Array) -> None:
    heads = np.ceil(a.heads / p.layouts.tp)
    top_k = float(a.indexer.top_k) if a.indexer else None
    options: dict[str, Any] = {"kv_bytes": p.replica.kv_bytes, "top_k": top_k, **p.common}
    if p.decoding:
        sequences, queries = _checking(p, a)
        _merge(p, times, heads, a.kv_rank + a.rope_dim, a.kv_rank)
        seconds = latent_decode_seconds(
            sequences, p.context / p.cp, heads * queries, float(a.kv_rank), float(a.rope_dim), **options
        )
        read = attended_tokens(a, p.context / p.cp)
        cache = sequences * read * ((a.kv_rank + a.rope_dim) * p.replica.kv_bytes)
        p.add("attention decode", seconds, times, moved=cache)
    if p.prefilling:
        query, prefix = own_piece(p.chunk / p.prompts, p.prefix, p.cp)
        seconds = latent_prefill_seconds(
            query, prefix, p.prompts, heads,
            nope_dim=float(a.nope_dim), rope_dim=float(a.rope_dim), value_dim=float(a.value_dim), **options,
        )  # fmt: skip
        p.add("attention prefill", seconds, times)
        _gather(p, times, np.asarray((a.kv_rank + a.rope_dim) * p.replica.kv_bytes), seconds, None)
    if a.indexer is not None and not a.indexer.shared:
        _indexer(p, a.indexer.heads, a.indexer.head_dim, 1.0, times)


def _merge(p: Pass, times: Array, heads: Array, key_width: int, value_width: int) -> None:
    """Queries and partial outputs of decodes whose cache lies on several context ranks."""
    if p.layouts.long:
        seconds = merge_seconds(p.replica, p.layouts, p.decoded, heads, key_width, value_width)
        p.add("context exchange", p.waited(seconds, p.layouts.cp, 2.0), times)


def _gather(p: Pass, times: Array, entry_bytes: Array, attention: Array, window: int | None) -> None:
    """Keys and values of a chunk and of what its queries see before it, from the other context ranks."""
    if not p.layouts.long:
        return
    seen = p.prefix if window is None else np.minimum(p.prefix, float(window))
    size = (seen * p.prompts + p.chunk) * entry_bytes
    seconds = gather_seconds(p.replica, p.layouts, size, attention)
    p.add("context exchange", p.waited(seconds, p.layouts.cp), times)


def _recurrent(p: Pass, mixer: LinearAttention | Mamba, times: Array) -> None:
    if isinstance(mixer, LinearAttention):
        heads, rows, columns = mixer.value_heads, mixer.key_dim, mixer.value_dim
    else:
        heads, rows, columns = mixer.heads, mixer.head_dim, mixer.state_size
    shape = (np.ceil(heads / p.layouts.tp), float(rows), float(columns))
    options: dict[str, Any] = {"state_bytes": float(mixer.state_dtype_bytes), **p.common}
    # Every checked position leaves a state of its own, of which the last accepted one is kept.
    states = p.decodes * (1.0 + p.width) / 2.0
    seconds = recurrent_seconds(p.decoded, states, *shape, **options)
    if p.prefilling:
        seconds = seconds + recurrent_seconds(p.chunk, p.prompts, *shape, **options)
    p.add("recurrent state", seconds, times)
