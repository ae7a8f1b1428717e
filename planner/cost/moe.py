"""Mixture-of-experts block on the most loaded rank (COST_MODEL.md point 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import Efficiency, MoeConstants
from planner.cost.roofline import (
    MATH_BYTES,
    Array,
    array,
    effective_math,
    element_bytes,
    memory_seconds,
    peak_flops,
    smooth_maximum,
)
from planner.units import Seconds


def active_experts(experts: ArrayLike, top_k: ArrayLike, tokens: ArrayLike, *, skew: float = 1.0) -> Array:
    """Expected distinct experts that ``tokens`` reach: E*(1 - (1 - k/E)**(skew*tokens)).

    ``skew`` below 1 counts correlated tokens (real routing is uneven); 1 is uniform routing.
    """
    e, k, t = array(experts), array(top_k), array(tokens)
    with np.errstate(divide="ignore"):
        return -e * np.expm1(t * (skew * np.log1p(-np.minimum(k / e, 1.0)))) * (t > 0)


def moe_constants(math: str, accelerator: Accelerator, efficiency: Efficiency) -> MoeConstants:
    """Constants of the math type in which the experts really run."""
    effective = effective_math(math, accelerator)
    table = efficiency.moe
    return table.get(effective) or table[{"int8": "fp8", "fp8_block": "fp8"}.get(effective, "bf16")]


def _products(
    rows: Array,
    busy: Array,
    hidden: Array,
    width: Array,
    matrices: float,
    stored: float,
    math: str,
    constants: MoeConstants,
    accelerator: Accelerator,
) -> tuple[Array, Array]:
    """Compute seconds and bytes of the grouped products of ``rows`` over ``busy`` experts, ``math`` effective."""
    activation = MATH_BYTES[math]
    weights = hidden * width * matrices
    work = (rows + constants.padding * busy) * weights * (1.0 + constants.grain / np.minimum(width, hidden))
    slowdown = constants.dequantise if stored < activation else 1.0
    compute = work * (2.0 * slowdown / (constants.compute * peak_flops(math, accelerator)))
    moved = width * ((matrices - 1.0) * 2.0 + activation) + hidden * (2.0 + activation)
    return compute, busy * weights * stored + rows * moved


def experts_seconds(
    tokens: ArrayLike,
    hidden: ArrayLike,
    width: ArrayLike,
    experts: ArrayLike,
    top_k: ArrayLike,
    *,
    ep: ArrayLike = 1,
    tp: ArrayLike = 1,
    gated: bool = True,
    math: str,
    weight_bytes: float | None = None,
    accelerator: Accelerator,
    efficiency: Efficiency,
    imbalance: ArrayLike = 1.0,
    skew: float = 1.0,
    active: ArrayLike | None = None,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of the fused expert block on the most loaded rank, without communication.

    t = launch + smooth_maximum(padded rows*2*weights*(1 + grain/w)/(ec*P), bytes/(em*BW)) + passes.

    Parameters
    ----------
    tokens : tokens of the whole expert-parallel group.
    width : intermediate width of one expert before the split over ``tp``.
    ep, tp : experts per rank = experts/ep, width per rank = width/tp.
    imbalance : rows of the most loaded rank over the mean, at least 1.
    skew : see `active_experts`; ``active`` gives the active experts of the rank instead.
    """
    t, h, e, k = array(tokens), array(hidden), array(experts), array(top_k)
    w, ep_ = array(width) / array(tp), array(ep)
    constants = moe_constants(math, accelerator, efficiency)
    rows = t * k / ep_ * array(imbalance)
    busy = active_experts(e, k, t, skew=skew) / ep_ if active is None else array(active)
    stored = element_bytes(math) if weight_bytes is None else weight_bytes
    matrices = 3.0 if gated else 2.0
    compute, traffic = _products(
        rows, busy, h, w, matrices, stored, effective_math(math, accelerator), constants, accelerator
    )
    cached = efficiency.cache.experts if cache_hot else 0.0
    memory = memory_seconds(traffic, constants.memory, constants.fill, accelerator, efficiency, cached)
    total = smooth_maximum(compute, memory, constants.overlap)
    bandwidth = constants.memory * accelerator.memory_bandwidth
    total += h * (rows * constants.passes + t * constants.spread) * (2.0 / bandwidth)
    total += constants.launch if launch is None else launch
    return np.where(t > 0, total, 0.0)
