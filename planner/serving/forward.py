"""One evaluation of a forward pass: the arrays that every operator needs, and the ledger they write to."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.serving.context import own_tokens
from planner.serving.layout import Array, Layouts, floats
from planner.serving.replica import Replica
from planner.serving.work import Ledger, Work

# Inside a captured graph a kernel starts without the host; what is left between kernels is the engine's layer gap.
IN_GRAPH_LAUNCH = 0.0

_SLOWDOWN = {
    "attention linears": "dense_slowdown",
    "ffn": "dense_slowdown",
    "lm head": "dense_slowdown",
    "norms": "dense_slowdown",
    "attention decode": "attention_slowdown",
    "attention prefill": "attention_slowdown",
    "sparse indexer": "attention_slowdown",
    "recurrent state": "attention_slowdown",
    "experts": "expert_slowdown",
    "all-reduce": "collective_slowdown",
    "expert dispatch": "collective_slowdown",
    "pipeline": "collective_slowdown",
    "context exchange": "collective_slowdown",
}
"""Which factor of the engine applies to which operator."""


class Pass:
    """Layouts and work as arrays that broadcast, and what has been booked so far."""

    def __init__(self, replica: Replica, layouts: Layouts, work: Work) -> None:
        self.replica, self.layouts, self.ledger = replica, layouts, Ledger()
        self.decodes = floats(work.sequences)
        self.width = 1.0 + work.drafted
        self.decoded = self.decodes * self.width
        self.sampled = self.decodes if work.one_sample else self.decoded
        self.context = floats(work.context)
        self.chunk = floats(work.chunk)
        self.prefix = floats(work.prefix)
        self.prompts = floats(work.prompts)
        self.quantised = work.quantised
        ranks = layouts.attention_dp
        carrying = np.where(floats(work.prefilling) > 0, np.minimum(floats(work.prefilling), ranks), ranks)
        self.routed_tokens = self.decoded * ranks + self.chunk * carrying
        self.prefilling = bool(np.any(self.chunk > 0))
        self.decoding = bool(np.any(self.decodes > 0))
        self.cp: Array | float = layouts.cp if layouts.long else 1.0
        self.tokens = own_tokens(self.decoded + self.chunk, self.cp) if layouts.long else self.decoded + self.chunk
        self.hidden = replica.model.hidden
        layers = len(replica.model.layers)
        # Layers are whole: the fullest stage sets the pace of all.
        self.unevenness = np.ceil(layers / layouts.pp) * layouts.pp / layers
        self.common: dict[str, Any] = {
            "accelerator": replica.accelerator,
            "efficiency": replica.efficiency,
            "launch": IN_GRAPH_LAUNCH,
        }

    def add(self, name: str, seconds: Array, times: float | Array = 1.0, *, moved: float | Array = 0.0) -> None:
        """Book the time of a kernel as it runs inside the engine, which cannot beat the memory that it reads from.

        ``moved`` bytes at datasheet bandwidth are the floor of kernels that engines run faster than the benchmark did.
        """
        factor = getattr(self.replica.engine, _SLOWDOWN[name])
        floor = moved / self.replica.accelerator.memory_bandwidth
        self.ledger.add(name, np.maximum(seconds * factor, floor), times)

    def waited(self, seconds: Array, ranks: Array, collectives: float = 1.0) -> Array:
        """Seconds of collectives inside an engine, where ranks arrive at different times.

        All wait for the last: the expected largest of n exponential delays grows like log n, and so do the rounds of a
        barrier (a benchmark loop keeps its ranks in step). ``collective_wait`` is that of two ranks.
        """
        engine = self.replica.engine
        wait = collectives * engine.collective_wait * np.log2(np.maximum(ranks, 1.0))
        return np.where(seconds > 0, seconds + wait / engine.collective_slowdown, 0.0)
