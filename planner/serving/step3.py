"""Step-3's arithmetic of decoding: dollars per token by side, and how sparse an MoE may be.

Source: arXiv 2507.19427, sections 2 and 4. Attention and FFN each run on the hardware that is cheapest for them, the
network is hidden; U = price per hour / 3600 / rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.architecture.demand import attention_core_flops, attention_linear_flops, ffn_flops, kv_bytes_read
from planner.architecture.model import Model
from planner.serving.layout import Array, floats
from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """One kind of hardware: US dollars per hour, FLOP/s, memory bytes/s."""

    usd_per_hour: float
    flops: float
    bandwidth: float


def attention_usd(model: Model, context: ArrayLike, rates: Rates, kv_bytes: float = 1.0) -> Array:
    """US dollars per decoded token: max(core FLOPs * U_flop, KV bytes * U_byte) + linear FLOPs * U_flop.

    Latent attention counts values at the width of keys, as the paper does.
    """
    per_flop, per_byte = (rates.usd_per_hour / 3600 / x for x in (rates.flops, rates.bandwidth))
    core = attention_core_flops(model, context, latent_values_with_rope=True) * per_flop
    cache = kv_bytes_read(model, context, kv_bytes) * per_byte
    return np.asarray(np.maximum(core, cache) + attention_linear_flops(model) * per_flop)


def ffn_usd(model: Model, rates: Rates) -> float:
    """US dollars per decoded token of the feed-forward side: FLOPs * U_flop."""
    return ffn_flops(model) * rates.usd_per_hour / 3600 / rates.flops


def minimum_sparsity(
    rates: Rates, *, hidden: float, layers: float, network: float, tpot: Seconds, stages: int = 3
) -> float:
    """Smallest share of active experts that keeps FFN hardware busy within the network's time.

    Full use of the matrix units wants B_MoE = FLOPs/(2*S*bandwidth) tokens (8-bit weights); their messages, 3 * hidden
    bytes each (8 bits out, 16 bits back), must pass in a stage, tpot/stages/layers:
    S >= hidden * FLOPs * layers * 3 * stages / (2 * network * bandwidth * tpot).
    """
    per_layer = floats(tpot) / stages / layers
    return float(3 * hidden * rates.flops / (2 * rates.bandwidth * network * per_layer))
