"""Attention kernels: prefill of a chunk, decode, multi-head latent attention (MLA), sparse selection.

Forms: COST_MODEL.md points 2 to 4; MLA: DeepSeek-V2 paper, section 2.1; sparse selection:
DeepSeek-V3.2-Exp report, section 2. All sizes are per accelerator (local heads) and broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import DecodeConstants, Efficiency, PrefillConstants
from planner.cost.roofline import (
    Array,
    array,
    effective_math,
    memory_seconds,
    peak_flops,
    smooth_maximum,
    work_units,
)
from planner.units import Seconds

_LONGEST = 16384.0  # keys; kernels split a longer span over blocks, and none longer was measured


def attended_pairs(query: ArrayLike, prefix: ArrayLike, window: ArrayLike | None = None) -> Array:
    """Causal (query, key) pairs of one sequence: the sum over i = 1..q of min(prefix + i, window)."""
    q, p = array(query), array(prefix)
    if window is None:
        return q * (p + 0.5 * (q + 1.0))
    w = array(window)
    rising = np.clip(w - p, 0.0, q)
    return rising * (p + 0.5 * (rising + 1.0)) + (q - rising) * w


def _pair_seconds(math: str, width: float, constants: PrefillConstants, accelerator: Accelerator) -> float:
    """Seconds of one (query, key) pair of one head on the chip: 2*width/(ec*P) + 1/(exponentials*units).

    ``width`` = d_qk + d_v. The exponential units do not speed up with narrow math, which is why 8-bit
    attention gains little (measured/ops/attention_prefill.csv; FlashAttention-3, section 3).
    """
    matrix = 2.0 * width / (constants.compute * peak_flops(math, accelerator))
    return matrix + 1.0 / (constants.exponential * work_units(accelerator))


def _padded_pairs(
    pairs: Array, query: Array, span: Array, blocks: Array, constants: PrefillConstants, units: float
) -> Array:
    """Pairs, padded to tiles, that the chip works through: work + tail*longest block on every unit.

    ``pairs`` of one sequence and head, ``span`` keys that the last query sees, ``blocks`` sequences * heads.
    """
    tile = constants.tile
    padded = np.ceil(query / tile) * tile
    work = (pairs + padded * (0.5 * tile + constants.depth)) * blocks
    # Blocks of a chunk differ in length by no more than the chunk; the keys in front of it all of them share.
    longest = np.minimum(np.minimum(span, _LONGEST), query)
    work += (longest + tile) * (tile * units * constants.tail)
    return work


def attention_prefill_seconds(
    query: ArrayLike,
    prefix: ArrayLike,
    sequences: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: float,
    value_dim: float,
    *,
    math: str,
    kv_bytes: float,
    accelerator: Accelerator,
    efficiency: Efficiency,
    window: ArrayLike | None = None,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of causal attention: ``sequences`` chunks of ``query`` tokens after ``prefix`` cached ones.

    t = launch + smooth_maximum(padded pairs * _pair_seconds, bytes of queries, outputs, keys and values).
    Rotary embedding and the KV write are elementwise kernels, not counted here.
    """
    q, p, s = array(query), array(prefix), array(sequences)
    h, kv = array(heads), array(kv_heads)
    constants = efficiency.prefill
    effective = effective_math(math, accelerator)
    units = work_units(accelerator)
    span = p + q if window is None else np.minimum(p + q, array(window) + q)
    width = head_dim + value_dim
    pairs = attended_pairs(q, p, window)
    work = _padded_pairs(pairs, q, np.minimum(span, p + q), s * h, constants, units)
    compute = work * _pair_seconds(effective, width, constants, accelerator)
    traffic = s * width * (q * h * 2.0 + span * kv * kv_bytes)
    cached = efficiency.cache.sequence if cache_hot else 0.0
    memory = memory_seconds(traffic, constants.memory, constants.fill, accelerator, efficiency, cached)
    total = smooth_maximum(compute, memory, constants.overlap)
    total += constants.launch if launch is None else launch
    return np.where((q > 0) & (s * h > 0), total, 0.0)


def _decode(
    traffic: Array,
    chunk_bytes: Array,
    compute: Array,
    kv_bytes: float,
    constants: DecodeConstants,
    accelerator: Accelerator,
    efficiency: Efficiency,
    start: Array,
    cache_hot: bool,
) -> Array:
    """start + smooth_maximum(memory, compute); the KV pass lasts at least one chunk on one unit."""
    share = constants.memory if kv_bytes >= 2.0 else constants.memory_fp8
    cached = efficiency.cache.sequence if cache_hot else 0.0
    memory = memory_seconds(traffic, share, constants.fill, accelerator, efficiency, cached)
    memory = np.maximum(memory, chunk_bytes / efficiency.cache.unit_bandwidth)
    total = smooth_maximum(memory, compute, constants.overlap)
    return np.where(traffic > 0, total + start, 0.0)


_FULL_TILE = 64.0
"""Rows of a warp-group matrix product (Hopper wgmma m64)."""


def _padded_rows(share: Array, queries: Array, efficiency: Efficiency) -> Array:
    """Rows of the matrix unit, over the share of its peak at which they run, that ``queries`` of each sequence and
    ``share`` heads for each KV head take up.

    A lone query runs at the low rate of small groups, rounded to ``group`` rows, unless it fills a tile by itself: then
    as the absorbed latent kernels do. Further queries of a draft are rows of the same tile: more small groups or full
    tiles, whichever is less, and no less than one query (flat to 64 rows on an H200: benchmarks/score_steps.py).
    """
    constants, full = efficiency.decode, efficiency.latent_decode.compute

    def groups(rows: Array) -> Array:
        padded = np.ceil(rows / constants.group) * constants.group
        return padded / np.where(rows >= _FULL_TILE, full, constants.compute)

    alone = groups(share)
    if np.all(queries == 1.0):
        return alone
    rows = share * queries
    tiled = np.maximum(np.ceil(rows / constants.group) * constants.group, _FULL_TILE) / full
    return np.maximum(alone, np.minimum(groups(rows), tiled))


def attention_decode_seconds(
    sequences: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: float,
    value_dim: float,
    *,
    kv_bytes: float,
    accelerator: Accelerator,
    efficiency: Efficiency,
    window: ArrayLike | None = None,
    queries: ArrayLike = 1.0,
    widest_group: float | None = None,
    flash2: bool = False,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of attention of few queries per sequence over ``context`` cached tokens (COST_MODEL.md point 3).

    KV bytes/(em*BW), at least one chunk on one unit, against the FLOPs of query groups padded to the matrix unit.

    Parameters
    ----------
    queries : of each sequence, which share its cache; more than one where a draft is checked. They are rows of the
        tile that the heads of a KV head stand in, and cost next to nothing until it is full.
    widest_group : queries per KV head that the tensor-core kernel serves (TensorRT-LLM: 32); wider groups fall back to
        scalar units. None = no limit (FlashAttention, FlashInfer).
    flash2 : FlashAttention-2 over a paged cache splits the keys of a sequence only where several queries share a KV
        head, and joins the pieces in a kernel of its own (two launches); a head of its own is read by one unit from end
        to end.
    """
    s, c, h, kv = array(sequences), array(context), array(heads), array(kv_heads)
    if window is not None:
        c = np.minimum(c, array(window))
    constants, n = efficiency.decode, array(queries)
    width = head_dim + value_dim
    keys = s * kv * c
    share = h / kv
    compute = keys * _padded_rows(share, n, efficiency) * (2.0 * width / peak_flops("bf16", accelerator))
    if widest_group is not None:
        scalar = keys * share * n * (2.0 * width / (constants.wide * work_units(accelerator)))
        compute = np.where(share * n > widest_group, np.maximum(compute, scalar), compute)
    traffic = keys * (width * kv_bytes) + (s * h * n * (width * 2.0)) * (c > 0)
    start = constants.launch if launch is None else launch
    splits, starts = array(constants.splits), array(start)
    if flash2:
        splits, starts = np.where(share > 1.0, constants.splits, 1.0), np.where(share > 1.0, 2.0 * start, start)
    chunk = np.maximum(constants.chunk, c / splits) * (width * kv_bytes)
    return _decode(traffic, chunk, compute, kv_bytes, constants, accelerator, efficiency, starts, cache_hot)


def latent_prefill_seconds(
    query: ArrayLike,
    prefix: ArrayLike,
    sequences: ArrayLike,
    heads: ArrayLike,
    *,
    nope_dim: float,
    rope_dim: float,
    value_dim: float,
    kv_bytes: float,
    accelerator: Accelerator,
    efficiency: Efficiency,
    math: str = "bf16",
    kv_rank: float = 512.0,
    top_k: ArrayLike | None = None,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of MLA prefill: attention with head dims (nope + rope) / value, keys expanded per head.

    With ``top_k`` each query attends min(context, top_k) keys in the absorbed form, whose 2*kv_rank + rope
    MACs per head and pair read gathered latent vectors. The projections are matrix products, counted apart.
    """
    q, p, s, h = array(query), array(prefix), array(sequences), array(heads)
    constants = efficiency.latent_prefill
    effective = effective_math(math, accelerator)
    pairs = attended_pairs(q, p, top_k)
    latent = (kv_rank + rope_dim) * kv_bytes
    if top_k is None:
        width = nope_dim + rope_dim + value_dim
        work = _padded_pairs(pairs, q, p + q, s * h, constants, work_units(accelerator))
        traffic = s * (h * (2.0 * q + p) * (width * 2.0) + (p + q) * latent)
    else:
        width = 2.0 * kv_rank + rope_dim
        work = pairs * (s * h)
        traffic = s * (pairs * latent + q * h * (width * 2.0))
    compute = work * _pair_seconds(effective, width, constants, accelerator)
    cached = efficiency.cache.sequence if cache_hot else 0.0
    memory = memory_seconds(traffic, constants.memory, constants.fill, accelerator, efficiency, cached)
    total = smooth_maximum(compute, memory, constants.overlap)
    total += constants.launch if launch is None else launch
    return np.where((q > 0) & (s * h > 0), total, 0.0)


def latent_decode_seconds(
    sequences: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    kv_rank: float,
    rope_dim: float,
    *,
    kv_bytes: float,
    accelerator: Accelerator,
    efficiency: Efficiency,
    top_k: ArrayLike | None = None,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of absorbed MLA decode: kv_rank + rope bytes per cached token are shared by all local heads.

    2*kv_rank + rope MACs per head and key (1,088 for DeepSeek-V3), heads padded to the matrix unit.
    With ``top_k`` (sparse selection) a query reads min(context, top_k) keys.
    """
    s, c, h = array(sequences), array(context), array(heads)
    if top_k is not None:
        c = np.minimum(c, array(top_k))
    constants = efficiency.latent_decode
    stored = (kv_rank + rope_dim) * kv_bytes
    macs = 2.0 * kv_rank + rope_dim
    padded = np.ceil(h / constants.group) * constants.group
    rate = constants.compute * peak_flops("bf16", accelerator)
    compute = s * c * padded * (2.0 * macs / rate)
    traffic = s * c * stored + (s * h * (macs * 2.0)) * (c > 0)
    chunk = np.maximum(constants.chunk, c / constants.splits) * stored
    start = array(constants.launch if launch is None else launch)
    return _decode(traffic, chunk, compute, kv_bytes, constants, accelerator, efficiency, start, cache_hot)


def indexer_seconds(
    query: ArrayLike,
    prefix: ArrayLike,
    sequences: ArrayLike,
    heads: float,
    head_dim: float,
    *,
    accelerator: Accelerator,
    efficiency: Efficiency,
    key_bytes: float = 1.0,
    math: str = "fp8",
    launch: Seconds | None = None,
) -> Array:
    """Seconds of a sparse-attention indexer: every query scores every earlier token with small shared keys.

    2*heads*head_dim FLOPs per pair, the keys once per sequence, and the float32 score row written and read
    back for the top-k selection: two kernels (DeepSeek-V3.2-Exp report, section 2, lightning indexer).
    """
    q, p, s = array(query), array(prefix), array(sequences)
    constants = efficiency.prefill
    elementwise = efficiency.elementwise
    pairs = attended_pairs(q, p) * s
    rate = constants.compute * peak_flops(effective_math(math, accelerator), accelerator)
    traffic = s * ((p + q) * (head_dim * key_bytes) + q * (heads * head_dim * 2.0)) + pairs * 8.0
    memory = memory_seconds(traffic, elementwise.memory, 0.0, accelerator, efficiency)
    total = smooth_maximum(pairs * (2.0 * heads * head_dim / rate), memory, constants.overlap)
    total += 2.0 * (elementwise.launch if launch is None else launch)
    return np.where((q > 0) & (s > 0), total, 0.0)
