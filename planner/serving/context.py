"""Context parallelism: the tokens of a prompt and the cache of a request are cut over ``cp`` ranks.

Each of the cp ranks holds all weights that tensor parallelism leaves it; experts are spread over all tp*attention_dp*cp
ranks of a stage. Tokens are cut evenly, so that matrix products, norms and messages shrink by cp.

* Prefill: a rank takes one early and one late piece of every prompt (zig-zag; Llama 3, arXiv 2407.21783, section
  3.3.2), which gives all ranks the same number of causal pairs, 1/cp of them. Keys and values of the prompt and of what
  is cached before it are gathered from the other ranks, layer by layer; a ring passes them on while the rank attends to
  those it has (Ring Attention, arXiv 2310.01889) and leaves max(T - attention*(cp-1)/cp, 0) of the T seconds exposed.
* Decode: the cache of a request is cut over the ranks. Queries are gathered, each rank attends to its part of every
  context, and partial outputs with their log-sum-exps go back to the rank of the request, where they are merged (pass-Q
  decode, arXiv 2411.01783, section 3.6; Helix, arXiv 2507.07120; decode context parallelism of vLLM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from planner.cost.collective import Topology, all_gather_seconds, all_to_all_seconds
from planner.serving.layout import Array, Layouts
from planner.serving.replica import Replica

ACTIVATION_BYTES = 2.0  # hidden states travel and rest in bf16
_LSE_BYTES = 4.0


def own_tokens(tokens: Array, cp: Array | float) -> Array:
    """Tokens of an iteration on one of cp ranks; the last token is whole."""
    return np.asarray(np.maximum(tokens / cp, np.minimum(tokens, 1.0)))


def own_piece(query: Array, prefix: Array, cp: Array | float) -> tuple[Array, Array]:
    """Chunk and prefix with which one rank has its balanced share of the causal pairs: c/cp and p + (c - c/cp)/2.

    c/cp * (p + (c - c/cp)/2 + (c/cp + 1)/2) = (c*p + c*(c + 1)/2)/cp.
    """
    piece = query / cp
    return np.asarray(piece), np.asarray(prefix + (query - piece) / 2)


def gather_seconds(replica: Replica, layouts: Layouts, size: Array, attention: Array) -> Array:
    """Exposed seconds until a rank has the ``size`` bytes of keys and values that all ranks of a layer hold together,
    beside ``attention`` seconds of the layer's attention."""
    whole = _between(replica, layouts, lambda links, cp: all_gather_seconds(size, cp, **_links(replica, links)))
    if replica.engine.context_exchange == "gather":
        return whole
    return np.maximum(whole - attention * (layouts.cp - 1.0) / layouts.cp, 0.0)


def merge_seconds(
    replica: Replica, layouts: Layouts, queries: Array, heads: Array, key_width: float, value_width: float
) -> Array:
    """Seconds to gather ``queries`` decoded tokens of ``heads`` local heads of ``key_width`` elements, and to send back
    partial outputs of ``value_width`` elements and a log-sum-exp per head."""

    def both(links: Topology, cp: Array) -> Array:
        options = _links(replica, links)
        asked = all_gather_seconds(queries * heads * (key_width * ACTIVATION_BYTES), cp, **options)
        answered = all_to_all_seconds(queries * heads * (value_width * ACTIVATION_BYTES + _LSE_BYTES), cp, **options)
        return asked + answered

    return _between(replica, layouts, both)


def _links(replica: Replica, topology: Topology) -> dict[str, Any]:
    return {"topology": topology, "efficiency": replica.efficiency}


def _between(replica: Replica, layouts: Layouts, seconds: Callable[[Topology, Array], Array]) -> Array:
    """Seconds of a collective over the cp ranks of one tensor-parallel rank: neighbours lie tp GPUs apart, so that a
    scale-up domain holds domain/tp of them."""
    links, total = replica.topology, np.zeros(1)
    for tp in np.unique(layouts.tp):
        near = replace(links, domain_size=max(1, int(links.domain_size // tp)))
        total = total + np.where(layouts.tp == tp, seconds(near, layouts.cp), 0.0)
    return np.where(layouts.cp > 1, total, 0.0)
