"""The same plan at another load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.search.candidates import Family, batch_at_rate, metrics_at
from planner.search.ranking import Candidate
from planner.search.split_metrics import roles_of, running, state_metrics
from planner.serving.layout import Layouts
from planner.serving.memory import memory
from planner.serving.pd import open_split


def at_rate(candidate: Candidate, rate: float) -> Candidate:
    """Return ``candidate`` carrying ``rate`` requests/s, at most its own, with the metrics of that load."""
    if candidate.mode == "pd":
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
    prefill, decode = candidate.pools
    row = (prefill.layout, decode.layout, prefill.replicas, decode.replicas)
    flow = open_split(*roles_of(prefill.replica, decode.replica, [row]), np.array([rate]), candidate.lengths)
    (metrics,) = state_metrics(flow)
    pools = tuple(replace(pool, batch=b) for pool, b in zip(candidate.pools, running(flow, 0), strict=True))
    return replace(candidate, pools=pools, rate=rate, per_replica=metrics)
