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
    traffic: Array,
    share: float,
    fill: float,
    accelerator: Accelerator,
    efficiency: Efficiency,
    cached: float = 0.0,
) -> Array:
    """T + fill*sqrt(T) with T = traffic/(share*BW): short transfers do not reach the bandwidth of long ones.

    ``cached`` > 0 is the share of the last-level cache that a benchmark loop leaves warm: the hit share is
    1/(1 + (traffic/(cached*L2))**4), nearly all of a set below that size. Files measured/ops/gemm.csv and
    attention_decode.csv show the step (L40S: 96 MB of cache over 864 GB/s).
    """
    seconds = traffic / (share * accelerator.memory_bandwidth)
    if cached > 0 and accelerator.l2 > 0:
        ratio = traffic / (cached * accelerator.l2)
        ratio *= ratio
        hits = 1.0 / (1.0 + ratio * ratio)
        warm = traffic / (efficiency.cache.unit_bandwidth * work_units(accelerator))
        seconds = hits * np.minimum(warm, seconds) + (1.0 - hits) * seconds
    root = np.sqrt(seconds)
    root *= fill
    root += seconds
    return root


_UNIT_PEAK = 20e12  # FLOP/s, 16-bit; a chip with few, huge cores still works in tiles of about this rate


def work_units(accelerator: Accelerator) -> float:
    """Units that tiles are spread over: SMs or CUs; of chips with a few huge cores, slices of 20 TFLOP/s."""
    return max(float(accelerator.compute_units), accelerator.peak("bf16") / _UNIT_PEAK)


def dense_flops(math: str, accelerator: Accelerator, compute: float, power: float) -> float:
    """Sustained FLOP/s inside large tiles: P * min(compute * (density/1.4e12)**-power, 0.95).

    ``density`` is peak FLOP/s per watt, brought to 16 bits: dense math runs at power-limited clocks. Measured
    share of the 16-bit peak: A100 0.81 (0.8 TFLOP/s per watt), H100 0.76 (1.4), B200 0.68 (2.2). An unknown
    power counts as density 1.4e12.
    """
    peak = peak_flops(math, accelerator)
    if accelerator.power <= 0:
        return peak * compute
    density = peak * MATH_BYTES[math] / 2.0 / accelerator.power
    return float(peak * min(compute * (density / 1.4e12) ** -power, 0.95))


def effective_math(math: str, accelerator: Accelerator) -> str:
    """The type in which ``accelerator`` really multiplies: fp4 -> fp8 -> bf16, int8 -> bf16."""
    flops = accelerator.flops
    if math == "fp8_block":
        return math if "fp8" in flops else "bf16"
    if math == "int8" and flops.get("int8", 0.0) < accelerator.peak("bf16"):
        return "bf16"  # absent, or kept only for compatibility (Blackwell Ultra)
    if math in flops or math in ("bf16", "fp16", "fp32"):
        return math
    if math == "fp4" and "fp8" in flops:
        return "fp8"
    return "bf16"


def peak_flops(math: str, accelerator: Accelerator) -> float:
    """Dense peak FLOP/s of ``math`` (block-scaled fp8 runs on the fp8 units)."""
    return accelerator.peak("fp8" if math == "fp8_block" else math)
