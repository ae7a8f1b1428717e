"""Mixture-of-experts block on the most loaded rank (COST_MODEL.md point 5)."""

from __future__ import annotations

from functools import lru_cache
from heapq import heapify, heappop, heappush

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

LATENCY_KERNEL = "_latency"
"""Suffix of the constants of a kernel made for few rows per expert (trtllm-gen)."""


NARROW = "_w4"
"""Suffix of the constants of products that read 4-bit weights beside 8-bit inputs without widening them."""
_NARROW_BYTES = 0.75


EVEN = np.inf
"""Evenness of uniform routing: every expert is equally popular."""


def active_experts(experts: ArrayLike, top_k: ArrayLike, tokens: ArrayLike, *, evenness: float = EVEN) -> Array:
    """Expected distinct experts that ``tokens`` reach: E*(1 - (1 + x/a)**-a), x = -tokens*ln(1 - k/E).

    Popularity of an expert is Gamma distributed with squared variation 1/a, a = ``evenness``; a token misses an
    expert of popularity p with probability exp(-p*x/tokens), whose mean is that power (negative binomial law).
    Uniform routing (a -> infinity) is the usual E*(1 - (1 - k/E)**tokens); the first token always reaches k.
    """
    e, k, t = array(experts), array(top_k), array(tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = -t * np.log1p(-np.minimum(k / e, 1.0))
        if np.isfinite(evenness):
            missed = evenness * np.log1p(missed / evenness)
        reached = -e * np.expm1(-missed)
    return np.where(t > 0, np.maximum(reached, np.minimum(k, e) * np.minimum(t, 1.0)), 0.0)


_SPREAD = ((1.0, 0.0), (2.0, 0.5642), (4.0, 1.0294), (8.0, 1.4236), (16.0, 1.7660), (32.0, 2.0697), (64.0, 2.3437),
           (128.0, 2.5946), (256.0, 2.8270), (512.0, 3.0445))  # fmt: skip


def largest_of(count: ArrayLike) -> Array:
    """Expected largest of ``count`` standard normal draws (Harter 1961), linear in log2 between powers of two."""
    n, z = np.array(_SPREAD).T
    return array(np.interp(np.log2(np.maximum(array(count), 1.0)), np.log2(n), z))


_DRAWS = 200


@lru_cache(maxsize=1024)
def replicated_evenness(experts: int, copies: int, evenness: float) -> float:
    """Evenness of the copies of experts when ``copies`` further ones stand beside them.

    Each copy goes to the expert that is busiest for the copies it has, which share its tokens evenly (the rule of
    DeepSeek's EPLB). Evenness is 1 over the squared variation of popularity, so it grows by v(0)/v(copies), with v over
    the expected order statistics of ``experts`` Gamma(evenness) popularities. Copies lie on ranks at random, which is
    on the safe side: balancers also pack them.
    """
    if copies <= 0 or not np.isfinite(evenness):
        return evenness
    rng = np.random.default_rng(0)
    popularity = np.sort(rng.gamma(evenness, 1.0 / evenness, (_DRAWS, experts)), axis=1).mean(axis=0)
    count = np.ones(experts)
    heap = [(-float(p), i) for i, p in enumerate(popularity)]
    heapify(heap)
    for _ in range(copies):
        _, busiest = heappop(heap)
        count[busiest] += 1
        heappush(heap, (-float(popularity[busiest] / count[busiest]), busiest))
    loads = np.repeat(popularity / count, count.astype(int))
    before, after = (float(np.var(x) / np.mean(x) ** 2) for x in (popularity, loads))
    return evenness * before / max(after, 1e-12)


def loaded_rank(
    experts: ArrayLike,
    top_k: ArrayLike,
    tokens: ArrayLike,
    ep: ArrayLike,
    *,
    evenness: float = EVEN,
    imbalance: float | None = None,
) -> tuple[Array, Array]:
    """Rows and active experts of the most loaded of ``ep`` expert-parallel ranks.

    The mean rows m = tokens*k/ep of a rank vary with the draw of tokens (Poisson, 1/m) and with the popularity of its
    E/ep experts (ep/(a*E)); its active experts are E/ep Bernoulli draws. Layers wait for the largest of ep ranks,
    mean + z(ep)*deviation. A rank has no more rows than tokens * its experts, and no more active experts than rows.
    ``imbalance`` is the rows of that rank over the mean where it was measured.
    """
    e, k, t, n = array(experts), array(top_k), array(tokens), array(ep)
    local = e / n
    rows = t * k / n
    busy = active_experts(e, k, t, evenness=evenness) / n
    others = largest_of(n) * np.sqrt(1.0 - 1.0 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = np.sqrt(1.0 / np.maximum(rows, 1e-12) + 1.0 / (evenness * local))
    excess = others * variation if imbalance is None else np.where(n > 1, imbalance - 1.0, 0.0)
    most_rows = np.minimum(rows * (1.0 + excess), t * np.minimum(k, local))
    most_busy = busy + others * np.sqrt(np.maximum(busy * (1.0 - busy / local), 0.0))
    return most_rows, np.minimum(np.minimum(most_busy, local), np.maximum(most_rows, busy))


def moe_constants(math: str, stored: float, accelerator: Accelerator, efficiency: Efficiency) -> MoeConstants:
    """Constants of the math type in which the experts really run; ``stored`` bytes per weight.

    Matrix units with 4-bit operands also multiply 8-bit inputs by 4-bit weights (block-scaled mixed products of
    Blackwell and CDNA 4): nothing is widened, and engines run a kernel made for it. Elsewhere it is 8-bit math whose
    weights are widened first.
    """
    effective = effective_math(math, accelerator)
    table = efficiency.moe
    if math == "fp8" and stored < _NARROW_BYTES and "fp4" in accelerator.flops:
        return table[math + NARROW]
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


def _scanned(top_k: Array) -> Array:
    """Cost of a token of the group that the kernel only looks at, over that with top-7 routing: its state once, and
    every choice once to sort it (measured/ops/moe.csv spans top-1 to top-10)."""
    return (5.0 + top_k) / 12.0


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
    evenness: float = EVEN,
    rows: ArrayLike | None = None,
    active: ArrayLike | None = None,
    launch: Seconds | None = None,
    cache_hot: bool = False,
    kernel: str = "best",
) -> Array:
    """Seconds of the fused expert block on the most loaded rank, without communication.

    t = launch + smooth_maximum(padded rows*2*weights*(1 + grain/w)/(ec*P), bytes/(em*BW)) + passes.

    Parameters
    ----------
    tokens : tokens of the whole expert-parallel group.
    width : intermediate width of one expert before the split over ``tp``.
    ep, tp : experts per rank = experts/ep, width per rank = width/tp.
    evenness : see `loaded_rank`; ``rows`` and ``active`` give rows and active experts of the rank instead.
    kernel : ``grouped`` GEMMs, the ``latency`` kernel for few rows where the math type has one, or the ``best`` of
        both, as engines tune for each shape.
    """
    t, h, e, k = array(tokens), array(hidden), array(experts), array(top_k)
    w, ep_ = array(width) / array(tp), array(ep)
    routed, reached = loaded_rank(e, k, t, ep_, evenness=evenness)
    load = routed if rows is None else array(rows)
    busy = reached if active is None else array(active)
    stored = element_bytes(math) if weight_bytes is None else weight_bytes
    matrices = 3.0 if gated else 2.0
    effective = effective_math(math, accelerator)
    cached = efficiency.cache.experts if cache_hot else 0.0
    best: Array | None = None
    for constants in _kernels(math, stored, kernel, accelerator, efficiency):
        compute, traffic = _products(load, busy, h, w, matrices, stored, effective, constants, accelerator)
        memory = memory_seconds(traffic, constants.memory, constants.fill, accelerator, efficiency, cached)
        total = smooth_maximum(compute, memory, constants.overlap)
        bandwidth = constants.memory * accelerator.memory_bandwidth
        total += h * (load * constants.passes + t * _scanned(k) * constants.spread) * (2.0 / bandwidth)
        total += constants.launch if launch is None else launch
        best = total if best is None else np.minimum(best, total)
    return np.where(t > 0, array(0.0) if best is None else best, 0.0)


def _kernels(
    math: str, stored: float, kernel: str, accelerator: Accelerator, efficiency: Efficiency
) -> list[MoeConstants]:
    """Constants of the kernels that may run."""
    grouped = moe_constants(math, stored, accelerator, efficiency)
    latency = efficiency.moe.get(effective_math(math, accelerator) + LATENCY_KERNEL)
    if latency is None or kernel == "grouped":
        return [grouped]
    return [latency] if kernel == "latency" else [grouped, latency]
