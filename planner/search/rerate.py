"""The same plan at another load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.search.candidates import Family, batch_at_rate, metrics_at
from planner.search.ranking import Candidate
from planner.serving.layout import Layouts
from planner.serving.memory import memory


def at_rate(candidate: Candidate, rate: float) -> Candidate:
    """Return ``candidate`` carrying ``rate`` requests/s, at most its own, with the metrics of that load."""
    if candidate.mode != "aggregated":
        from planner.search.split_metrics import split_at_rate  # a search without splits reads no module of theirs

        return split_at_rate(candidate, rate)
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
