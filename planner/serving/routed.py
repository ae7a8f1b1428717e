"""Routed experts, and the way of tokens to them and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.architecture.linears import expert_linears
from planner.architecture.model import MoeFfn, Part
from planner.cost.collective import all_gather_seconds, all_to_all_seconds
from planner.cost.moe import active_experts, experts_seconds
from planner.serving.context import ACTIVATION_BYTES
from planner.serving.exchanges import add_all_reduce
from planner.serving.expert_load import rank_load
from planner.serving.forward import Pass
from planner.serving.layout import Array


def add_experts(p: Pass, ffn: MoeFfn, times: Array) -> None:
    """Book the routed experts of the busiest rank."""
    form = p.replica.formats[Part.EXPERTS]
    tokens = p.routed_tokens
    rows, active = rank_load(p.replica.engine, ffn, tokens, p.layouts)
    seconds = experts_seconds(
        tokens, float(ffn.latent or p.hidden), float(ffn.width),
        float(ffn.experts), float(ffn.top_k), ep=p.layouts.ep, tp=p.layouts.expert_tp, gated=ffn.gated,
        math=form.math, weight_bytes=form.bytes_per_weight,
        evenness=p.replica.engine.evenness, rows=rows, active=active, **p.common,
    )  # fmt: skip
    p.add("experts", seconds, times, moved=_expert_bytes(p, ffn, tokens, form.bytes_per_weight))


def _expert_bytes(p: Pass, ffn: MoeFfn, tokens: Array, weight_bytes: float) -> Array:
    """Weights of the experts that ``tokens`` reach, on one rank."""
    one = sum(linear.parameters for linear in expert_linears(ffn, p.hidden)) * weight_bytes
    reached = active_experts(float(ffn.experts), float(ffn.top_k), tokens, evenness=p.replica.engine.evenness)
    return np.asarray(reached * one / (p.layouts.ep * p.layouts.expert_tp))


def add_expert_exchange(p: Pass, ffn: MoeFfn, times: Array) -> None:
    """Bring tokens to their experts and back.

    Without attention data or context parallelism all ranks hold all tokens: one all-reduce sums the experts'
    outputs. With them, tokens are dispatched and combined (all-to-all), or gathered and reduce-scattered where that
    is less.
    """
    groups = p.layouts.token_groups
    if np.any(groups == 1):
        add_all_reduce(p, times * (groups == 1))
    if not np.any(groups > 1):
        return
    links: dict[str, Any] = {"topology": p.replica.topology, "efficiency": p.replica.efficiency}
    ranks = p.layouts.tp * groups
    row = (ffn.latent or p.hidden) * ACTIVATION_BYTES
    # A token travels once to each rank that holds any of its experts.
    spread = active_experts(p.layouts.ep, 1.0, float(ffn.top_k))
    exchange = 2 * all_to_all_seconds(p.tokens / p.layouts.tp * spread * row, ranks, **links)
    exchange = exchange + p.replica.engine.exchange_start
    gathered = p.routed_tokens * row
    gather = 2 * all_gather_seconds(gathered, ranks, **links)
    if p.replica.engine.expert_exchange == "fastest":
        exchange = np.minimum(exchange, gather)
    routed = np.where(p.layouts.ep > 1, exchange, gather)
    p.add("expert dispatch", p.waited(routed, ranks, 2.0), times * (groups > 1))
