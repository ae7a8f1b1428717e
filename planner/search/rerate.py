"""The same plan at another load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.search.candidates import Family, batch_at_rate, metrics_at
from planner.search.ranking import Candidate
from planner.search.split_metrics import roles_of, running, split_workers, state_metrics
from planner.serving.layout import Layout, Layouts
from planner.serving.memory import memory
from planner.serving.pd import open_split


def at_rate(candidate: Candidate, rate: float) -> Candidate:
    """Return ``candidate`` carrying ``rate`` requests/s, at most its own, with the metrics of that load."""
    if candidate.mode != "aggregated":
        return _split_at_rate(candidate, rate)
    columns = Layouts.of([candidate.layout])
    lengths = candidate.lengths
    family = Family(
        candidate.replica, (candidate.layout,), columns, memory(candidate.replica, columns, lengths), lengths
    )
    per_replica = np.array([rate / candidate.replicas])
    batch = batch_at_rate(family, per_replica, np.array([candidate.per_replica.batch]))
    (metrics,) = metrics_at(family, batch)
    pool = replace(candidate.emitting, batch=metrics.batch)
    return replace(candidate, pools=(pool,), rate=rate, per_replica=metrics)


def _split_at_rate(candidate: Candidate, rate: float) -> Candidate:
    prefill, decode = candidate.pools[0], candidate.emitting
    layout = Layout(decode.layout.tp, candidate.ranks) if candidate.mode == "af" else decode.layout
    row = (prefill.layout, layout, prefill.replicas, candidate.instances)
    first, second = roles_of(prefill.replica, decode.replica, [row])
    if candidate.mode == "af":
        second = replace(second, blocks=split_workers(candidate))
    flow = open_split(first, second, np.array([rate]), candidate.lengths)
    (metrics,) = state_metrics(flow)
    computing, decoding = running(flow, 0)
    # Feed-forward workers see the requests of all attention ranks, a micro-batch at a time.
    load = {"prefill": computing, "ffn": decoding * candidate.ranks / decode.micro_batches}
    pools = tuple(replace(pool, batch=load.get(pool.role, decoding)) for pool in candidate.pools)
    return replace(candidate, pools=pools, rate=rate, per_replica=metrics)
