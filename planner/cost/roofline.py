"""Arithmetic that all operators share: arrays, smooth maximum, effective math type."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import Efficiency

Array: TypeAlias = NDArray[np.float64]

_TINY = 1e-30  # seconds; keeps a quotient of two zero times finite

MATH_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0, "fp8": 1.0, "fp8_block": 1.0, "int8": 1.0, "fp4": 0.5}
"""Bytes per element of each math type."""

_SCALE_BYTES = {"fp4": 0.0625, "fp8_block": 0.0}


def array(value: ArrayLike) -> Array:
    """``value`` as float64."""
    return np.asarray(value, dtype=np.float64)


def element_bytes(math: str) -> float:
    """Bytes per weight of ``math`` with its block scales (nvfp4: one fp8 scale for 16 weights)."""
    return MATH_BYTES[math] + _SCALE_BYTES.get(math, 0.0)


def smooth_maximum(first: Array, second: Array, overlap: float) -> Array:
    """max + overlap * min**2 / max: two resources that almost overlap.

    At equal times it is (1 + overlap) of either; far from there the larger wins. It stands for a p-norm
    (p = 2.5 is overlap 0.32) at a fraction of its cost, and is monotone in both for overlap < 1.
    """
    high = np.maximum(first, second)
    low = np.minimum(first, second)
    low *= low
    low /= high + _TINY
    low *= overlap
    low += high
    return low


def memory_seconds(
    traffic: Array, share: float, accelerator: Accelerator, efficiency: Efficiency, cache_hot: bool
) -> Array:
    """traffic/(share*BW); with ``cache_hot`` the part that a benchmark loop left in the cache is read from there.

    Hit share h = 1/(1 + (traffic/(c*L2))**4): nearly all of a working set below the cache size, none far above.
    Files measured/ops/gemm.csv and attention_decode.csv (L40S: 96 MB of cache over 864 GB/s) show the step.
    """
    cold = traffic / (share * accelerator.memory_bandwidth)
    if not cache_hot or accelerator.l2 <= 0:
        return cold
    fill = traffic / (efficiency.cache.share * accelerator.l2)
    fill *= fill
    hits = 1.0 / (1.0 + fill * fill)
    warm = traffic / (efficiency.cache.unit_bandwidth * accelerator.compute_units)
    return hits * np.minimum(warm, cold) + (1.0 - hits) * cold


def effective_math(math: str, accelerator: Accelerator) -> str:
    """The type in which ``accelerator`` really multiplies: fp4 -> fp8 -> bf16, int8 -> bf16."""
    flops = accelerator.flops
    if math == "fp8_block":
        return math if "fp8" in flops else "bf16"
    if math in flops or math in ("bf16", "fp16", "fp32"):
        return math
    if math == "fp4" and "fp8" in flops:
        return "fp8"
    return "bf16"


def peak_flops(math: str, accelerator: Accelerator) -> float:
    """Dense peak FLOP/s of ``math`` (block-scaled fp8 runs on the fp8 units)."""
    return accelerator.peak("fp8" if math == "fp8_block" else math)
