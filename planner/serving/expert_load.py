"""The busiest expert-parallel rank when experts have redundant copies, or when its load was measured."""

from __future__ import annotations

import numpy as np

from planner.architecture.model import MoeFfn
from planner.cost.moe import loaded_rank, replicated_evenness
from planner.serving.engine import Engine
from planner.serving.layout import Array, Layouts


def rank_load(engine: Engine, ffn: MoeFfn, tokens: Array, layouts: Layouts) -> tuple[Array | None, Array | None]:
    """Rows and active experts of the busiest rank; None for both where the plain law of cost/moe.py holds.

    r copies on each of ep ranks make E + r*ep experts whose popularity is more even (`replicated_evenness`). The excess
    of a measured imbalance falls as the deviation of popularity does, by sqrt(evenness before/after).
    """
    if not engine.redundant_experts and not engine.expert_imbalance:
        return None, None
    shape = np.broadcast_shapes(tokens.shape, layouts.ep.shape)
    rows, active = np.zeros(shape), np.zeros(shape)
    for ep in np.unique(layouts.ep):
        copies = int(engine.redundant_experts * ep) if ep > 1 else 0
        evenness = replicated_evenness(ffn.experts, copies, engine.evenness)
        imbalance = None
        if engine.expert_imbalance:
            imbalance = 1.0 + (engine.expert_imbalance - 1.0) * float(np.sqrt(engine.evenness / evenness))
            imbalance = imbalance if np.isfinite(imbalance) else engine.expert_imbalance
        load = loaded_rank(
            float(ffn.experts + copies), float(ffn.top_k), tokens, ep, evenness=evenness, imbalance=imbalance
        )
        here = layouts.ep == ep
        rows, active = np.where(here, load[0], rows), np.where(here, load[1], active)
    return rows, active
