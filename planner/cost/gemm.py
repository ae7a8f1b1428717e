"""Dense matrix product y[m, n] = x[m, k] w[n, k]: tiles, waves, memory, launch (COST_MODEL.md point 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import Efficiency, GemmConstants
from planner.cost.roofline import (
    MATH_BYTES,
    Array,
    array,
    dense_flops,
    effective_math,
    element_bytes,
    memory_seconds,
    smooth_maximum,
    work_units,
)
from planner.units import Seconds

_TILES = ((64.0, 32.0), (64.0, 128.0), (128.0, 128.0), (128.0, 256.0))


def gemm_constants(math: str, accelerator: Accelerator, efficiency: Efficiency) -> GemmConstants:
    """Constants of the math type in which the product really runs; fp16 is bf16, int8 is fp8."""
    effective = effective_math(math, accelerator)
    table = efficiency.gemm
    for candidate in (effective, {"fp16": "bf16", "int8": "fp8", "fp32": "bf16"}.get(effective, effective)):
        if candidate in table:
            return table[candidate]
    raise KeyError(math)


def tile_seconds(m: Array, n: Array, k: Array, constants: GemmConstants, peak: float, units: float) -> Array:
    """Compute time of the best tile: max(w, 1) * 2*tm*tn*(k + depth) / (u*P/units), minimum over tiles.

    w = x + wave*(ceil(x) - x) are the waves of x = ceil(m/tm)*ceil(n/tn)/units blocks, u = a/(a + grain)
    with a = tm*tn/(tm + tn), P = `dense_flops`. Every candidate is monotone in m, n, k, hence so is the
    minimum. Split-k and further tiles did not lower the error left out (three to seven tiles score alike).
    """
    best: Array | None = None
    tall, wide = (
        {rows: np.ceil(m / rows) for rows, _ in _TILES},
        {columns: np.ceil(n / columns) for _, columns in _TILES},
    )
    for rows, columns in _TILES:
        harmonic = rows * columns / (rows + columns)
        rate = harmonic / (harmonic + constants.grain) * peak / units
        x = np.asarray(tall[rows] * wide[columns])
        x /= units
        waves = np.asarray(np.ceil(x))
        waves -= x
        waves *= constants.wave
        waves += x
        np.maximum(waves, 1.0, out=waves)
        waves *= 2.0 * rows * columns / rate
        best = waves if best is None else np.minimum(best, waves, out=best)
    assert best is not None
    return best * (k + constants.depth)


def gemm_seconds(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    math: str,
    accelerator: Accelerator,
    efficiency: Efficiency,
    weight_bytes: float | None = None,
    quantise_activations: bool = True,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of y[m, n] = x[m, k] w[n, k] on one accelerator; exactly 0 where m is 0.

    t = launch + smooth_maximum(tile_seconds, bytes/(em*BW)) + quantisation of the activations.

    Parameters
    ----------
    m, n, k : tokens, output and input features of this rank; arrays broadcast.
    math : type of the multiplication; one that the hardware lacks runs at the next wider one.
    weight_bytes : bytes per weight where they differ from ``math`` (0.5625: 4 bits and group scales).
    quantise_activations : whether x arrives in 16 bits and is quantised by its own kernel.
    launch : seconds per kernel launch; None takes the stand-alone value of the fit.
    cache_hot : whether operands lie in the last-level cache, as in a benchmark loop.
    """
    m, n, k = array(m), array(n), array(k)
    constants = gemm_constants(math, accelerator, efficiency)
    effective = effective_math(math, accelerator)
    start = constants.launch if launch is None else launch
    stored = element_bytes(math) if weight_bytes is None else weight_bytes
    activation = MATH_BYTES[effective]
    cached = efficiency.cache.weights if cache_hot else 0.0
    peak = dense_flops(effective, accelerator, constants.compute, constants.power)
    compute = tile_seconds(m, n, k, constants, peak, work_units(accelerator))
    if stored < activation:
        compute *= constants.dequantise
    traffic = m * (k * activation + n * 2.0) + n * (k * stored)
    memory = memory_seconds(traffic, constants.memory, constants.fill, accelerator, efficiency, cached)
    total = smooth_maximum(compute, memory, constants.overlap)
    total += start
    if quantise_activations and activation < 2.0:
        moved = m * k * (2.0 + activation)
        total += constants.quantise if launch is None else launch
        total += memory_seconds(moved, constants.quantise_memory, 0.0, accelerator, efficiency, cached)
    return np.where(m > 0, total, 0.0)
