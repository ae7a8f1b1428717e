"""Memory-bound kernels (norms, activations, rotary embedding) and the state update of recurrent layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import Efficiency
from planner.cost.roofline import Array, array, memory_seconds, peak_flops, smooth_maximum
from planner.units import Seconds

_CHUNK = 64.0  # tokens of one chunk of chunked linear attention (Mamba-2 and gated delta rule kernels)


def elementwise_seconds(
    traffic_bytes: ArrayLike,
    *,
    accelerator: Accelerator,
    efficiency: Efficiency,
    launch: Seconds | None = None,
    cache_hot: bool = False,
) -> Array:
    """Seconds of a kernel that only moves ``traffic_bytes``: launch + bytes/(em*BW); 0 for no bytes."""
    size = array(traffic_bytes)
    constants = efficiency.elementwise
    cached = efficiency.cache.sequence if cache_hot else 0.0
    total = memory_seconds(size, constants.memory, 0.0, accelerator, efficiency, cached)
    total = total + (constants.launch if launch is None else launch)
    return np.where(size > 0, total, 0.0)


def recurrent_seconds(
    tokens: ArrayLike,
    sequences: ArrayLike,
    heads: ArrayLike,
    key_dim: float,
    value_dim: float,
    *,
    accelerator: Accelerator,
    efficiency: Efficiency,
    state_bytes: float = 4.0,
    launch: Seconds | None = None,
) -> Array:
    """Seconds of a linear-attention or state-space layer over ``tokens`` tokens of ``sequences`` sequences.

    Every sequence reads and writes its state (heads*key_dim*value_dim); every token costs 4*key_dim*value_dim
    FLOPs against the state and 2*C*(key_dim + value_dim) inside its chunk of C tokens (Mamba-2, section 6;
    the chunk is 1 in decode, where tokens = sequences).
    """
    t, s, h = array(tokens), array(sequences), array(heads)
    constants = efficiency.elementwise
    state = h * (key_dim * value_dim)
    chunk = np.minimum(_CHUNK, t / np.maximum(s, 1.0))
    traffic = s * state * (2.0 * state_bytes) + t * h * ((2.0 * key_dim + 2.0 * value_dim) * 2.0)
    flops = t * (4.0 * state + h * (2.0 * (key_dim + value_dim)) * chunk)
    memory = traffic / (constants.memory * accelerator.memory_bandwidth)
    compute = flops / (constants.recurrent_compute * peak_flops("bf16", accelerator))
    total = smooth_maximum(memory, compute, 0.3)
    total += constants.launch if launch is None else launch
    return np.where((t > 0) & (s > 0), total, 0.0)
