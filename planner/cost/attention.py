"""Attention kernels: prefill of a chunk, decode, multi-head latent attention, sparse selection.

Forms: COST_MODEL.md points 2 to 4. All sizes are per accelerator (local heads) and broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import DecodeConstants, Efficiency, PrefillConstants
from planner.cost.roofline import MATH_BYTES, Array, array, effective_math, peak_flops, smooth_maximum
from planner.units import Seconds


def attended_pairs(query: ArrayLike, prefix: ArrayLike, window: ArrayLike | None = None) -> Array:
    """Causal (query, key) pairs of one sequence: the sum over i = 1..q of min(prefix + i, window)."""
    q, p = array(query), array(prefix)
    if window is None:
        return q * (p + 0.5 * (q + 1.0))
    w = array(window)
    rising = np.clip(w - p, 0.0, q)
    return rising * (p + 0.5 * (rising + 1.0)) + (q - rising) * w


def _prefill(
    pairs: Array,
    query: Array,
    span: Array,
    blocks: Array,
    flops: float | Array,
    memory: Array,
    constants: PrefillConstants,
    rate: float,
    units: float,
    launch: Seconds | None,
) -> Array:
    """launch + smooth_maximum(work/units + tail*longest block, memory) with work in padded tiles.

    ``pairs`` of one sequence and head, ``span`` keys that the last query sees, ``blocks`` sequences * heads,
    ``flops`` per pair, ``rate`` effective FLOP/s of the accelerator.
    """
    tile = constants.tile
    padded = np.ceil(query / tile) * tile
    work = (pairs + 0.5 * tile * padded + (padded - query) * (span * 0.5)) * blocks
    longest = (span + tile) * (tile * units * constants.tail)
    compute = (work + longest) * (flops / rate)
    total = smooth_maximum(compute, memory, constants.overlap)
    total += constants.launch if launch is None else launch
    return np.where((query > 0) & (blocks > 0), total, 0.0)


def _softmax(math: str, constants: PrefillConstants) -> float:
    return constants.softmax if MATH_BYTES[math] >= 2.0 else constants.softmax_fp8


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

    FLOPs = 2*(d_qk + d_v + d0) per head and pair, d0 the softmax (COST_MODEL.md point 2); HBM traffic of
    queries, outputs and keys; the longest block is not hidden by others.
    """
    q, p, s = array(query), array(prefix), array(sequences)
    h, kv = array(heads), array(kv_heads)
    constants = efficiency.prefill
    effective = effective_math(math, accelerator)
    span = p + q if window is None else np.minimum(p + q, array(window) + q * 0.0)
    width = head_dim + value_dim
    traffic = s * (q * h * (width * 2.0) + (span + q) * kv * (width * kv_bytes))
    return _prefill(
        attended_pairs(q, p, window),
        q,
        span,
        s * h,
        2.0 * (width + _softmax(effective, constants)),
        traffic / (constants.memory * accelerator.memory_bandwidth),
        constants,
        constants.compute * peak_flops(effective, accelerator),
        accelerator.compute_units,
        launch,
    )


def _decode(
    traffic: Array,
    chunk_bytes: float,
    flops: Array,
    constants: DecodeConstants,
    kv_bytes: float,
    accelerator: Accelerator,
    launch: Seconds | None,
) -> Array:
    """launch + smooth_maximum(KV time, FLOP time); a KV pass lasts at least one chunk on one unit."""
    share = constants.memory if kv_bytes >= 2.0 else constants.memory_fp8
    bandwidth = share * accelerator.memory_bandwidth
    memory = np.maximum(traffic, chunk_bytes * accelerator.compute_units) / bandwidth
    compute = flops / (constants.compute * peak_flops("bf16", accelerator))
    total = smooth_maximum(memory, compute, constants.overlap)
    total += constants.launch if launch is None else launch
    return np.where(traffic > 0, total, 0.0)


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
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of attention of one query per sequence over ``context`` cached tokens (COST_MODEL.md point 3).

    KV bytes/(em*BW*util) with util = min(1, sequences*kv_heads*context/chunk/units), against the FLOPs of
    query groups padded to the matrix unit.
    """
    s, c, h, kv = array(sequences), array(context), array(heads), array(kv_heads)
    if window is not None:
        c = np.minimum(c, array(window))
    constants = efficiency.decode
    width = head_dim + value_dim
    keys = s * kv * c
    group = np.ceil(h / (kv * constants.group)) * constants.group
    return _decode(
        keys * (width * kv_bytes) + s * h * (width * 2.0),
        constants.chunk * width * kv_bytes,
        keys * group * (2.0 * width),
        constants,
        kv_bytes,
        accelerator,
        launch,
    )


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

    With ``top_k`` (sparse selection) each query attends min(context, top_k) keys in the absorbed form, whose
    2*kv_rank + rope_dim MACs per head and pair read gathered latent vectors (COST_MODEL.md point 4).
    """
    q, p, s, h = array(query), array(prefix), array(sequences), array(heads)
    constants = efficiency.latent_prefill
    effective = effective_math(math, accelerator)
    softmax = _softmax(effective, constants)
    bandwidth = constants.memory * accelerator.memory_bandwidth
    rate = constants.compute * peak_flops(effective, accelerator)
    pairs = attended_pairs(q, p, top_k)
    if top_k is not None:
        flops = 2.0 * (2.0 * kv_rank + rope_dim + softmax)
        gathered = pairs * ((kv_rank + rope_dim) * kv_bytes) + q * h * ((2.0 * kv_rank + rope_dim) * 2.0)
        total = smooth_maximum(pairs * s * h * (flops / rate), s * gathered / bandwidth, constants.overlap)
        total += constants.launch if launch is None else launch
        return np.where((q > 0) & (s * h > 0), total, 0.0)
    width = nope_dim + rope_dim + value_dim
    traffic = s * h * ((2.0 * q + p) * (width * 2.0)) + s * (p + q) * ((kv_rank + rope_dim) * kv_bytes)
    return _prefill(
        pairs,
        q,
        p + q,
        s * h,
        2.0 * (width + softmax),
        traffic / bandwidth,
        constants,
        rate,
        accelerator.compute_units,
        launch,
    )


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
    """
    s, c, h = array(sequences), array(context), array(heads)
    if top_k is not None:
        c = np.minimum(c, array(top_k))
    constants = efficiency.latent_decode
    stored = (kv_rank + rope_dim) * kv_bytes
    padded = np.ceil(h / constants.group) * constants.group
    macs = 2.0 * kv_rank + rope_dim
    return _decode(
        s * c * stored + s * h * (macs * 2.0),
        constants.chunk * stored,
        s * c * padded * (2.0 * macs),
        constants,
        kv_bytes,
        accelerator,
        launch,
    )


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
    cache_hot: bool = False,
) -> Array:
    """Seconds of a sparse-attention indexer: every query scores every earlier token with small shared keys.

    2*heads*head_dim FLOPs per pair, the keys once per sequence, and the float32 score row written and read
    back for the top-k selection (DeepSeek-V3.2-Exp report, section 2: the lightning indexer).
    """
    q, p, s = array(query), array(prefix), array(sequences)
    constants = efficiency.prefill
    pairs = attended_pairs(q, p) * s
    rate = constants.compute * peak_flops(effective_math(math, accelerator), accelerator)
    bandwidth = efficiency.elementwise.memory * accelerator.memory_bandwidth
    traffic = s * ((p + q) * (head_dim * key_bytes) + q * (heads * head_dim * 2.0)) + pairs * 8.0
    total = smooth_maximum(pairs * (2.0 * heads * head_dim / rate), traffic / bandwidth, constants.overlap)
    total += 2.0 * (efficiency.elementwise.launch if launch is None else launch)
    return np.where((q > 0) & (s > 0), total, 0.0)
