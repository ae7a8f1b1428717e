"""What sets the pace of a plan that is split between attention and feed-forward workers."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.api import Catalogs, replica_of_pool
from planner.job.job import Job
from planner.plan import Plan
from planner.report.formats import rows_text
from planner.report.plot import share_bar
from planner.search.candidates import lengths_of
from planner.serving.afd import AttentionFfn, Workers
from planner.simulation.replay import workers_of


def plain_workers(plan: Plan, job: Job, catalogs: Catalogs) -> tuple[AttentionFfn, Workers]:
    """Both sides of an AF plan as they would be without a draft."""
    replicas = [replica_of_pool(job.model, pool, catalogs).drafting_nothing for pool in plan.pools]
    return workers_of(plan, replicas)


def stage_times(plan: Plan, job: Job, catalogs: Catalogs) -> dict[str, Any]:
    """Milliseconds for which the micro-batches of one decode iteration occupy each part of an AF plan in the layers of
    the model, and what sets their pace; then come the passes that draft."""
    split, workers = workers_of(plan, [replica_of_pool(job.model, pool, catalogs) for pool in plan.pools])
    requests = np.array([plan.pools[-1].running_batch]) * workers.ranks
    stages = split.stages(workers, requests, lengths_of(job.workload))
    m = workers.micro_batches
    return {
        "micro_batches": int(m[0]),
        "occupied_ms": {name: float((m * seconds)[0]) * 1e3 for name, seconds in stages.occupied.items()},
        "drafting_ms": float(stages.drafting(m)[0]) * 1e3,
        "one_micro_batch_ms": float(stages.total[0]) * 1e3,
        "iteration_ms": float(stages.iteration(m)[0]) * 1e3,
        "pace": stages.limiting(m)[0],
    }


def stages_text(stages: dict[str, Any], form: str) -> list[str]:
    """The same as lines: one sentence and a table."""
    whole = stages["iteration_ms"]
    rows: list[dict[str, Any]] = [
        {"one decode iteration": name, "ms": round(ms, 2), "busy": share_bar(ms / whole)}
        for name, ms in stages["occupied_ms"].items()
    ]
    if stages["drafting_ms"]:
        rows.append({"one decode iteration": "draft passes", "ms": round(stages["drafting_ms"], 2), "busy": ""})
    rows.append({"one decode iteration": "total", "ms": round(whole, 2), "busy": ""})
    said = f"{stages['pace']} sets the pace"
    if stages["pace"] == "latency":
        said = f"the way of one micro-batch through the layers, {stages['one_micro_batch_ms']:.1f} ms, sets the pace"
    blank = [""] if form == "md" else []
    return [f"{stages['micro_batches']} micro-batches in flight: {said}", *blank, rows_text(rows, form)]
