"""The search: every GPU type, precision and layout; the best operating point of each; ranked, with the rejects
counted.

All layouts of one GPU type and precision are evaluated on arrays, and all of them are: the order of the survivors is
therefore proved, not sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from planner.architecture.model import Model
from planner.job.job import Job
from planner.search.candidates import (
    POINTS_PER_LAYOUT,
    Family,
    Metrics,
    batch_at_rate,
    best_batches,
    fitting,
    lengths_of,
    metrics_at,
    metrics_of,
)
from planner.search.ranking import Candidate, Outcome, Share, pareto, rank_key
from planner.search.reject import Rejected, Rejections
from planner.search.space import context_widths, layouts, one_stage
from planner.search.supply import Supply as Supply
from planner.search.supply import affordable as affordable
from planner.search.supply import objective_of as objective_of
from planner.serving.closed_loop import POINTS_PER_ROW, ClosedLoop, closed_loop
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine
from planner.serving.latency import STATISTICS, e2e
from planner.serving.layout import Layout, Layouts
from planner.serving.precision import kv_choices, weight_choices
from planner.serving.replica import Replica

_REPLICA_COUNTS = 64
Progress = Callable[[str], None]


def search(
    model: Model,
    engine: Engine,
    supplies: list[Supply],
    job: Job,
    progress: Progress | None = None,
    drafting: Drafting | None = None,
) -> Outcome:
    """Rank all plans of a job. An empty ``ranked`` means that none meets the request; the ledger says why.

    With ``drafting`` every layout is evaluated without a draft and with drafts of several lengths.
    """
    outcome = Outcome(objective=objective_of(job), fleet=sum(s.count for s in supplies))
    if job.objective is None and outcome.objective == "cost" and all(s.price is None for s in supplies):
        outcome.objective = "gpus"  # the nearest thing to a price that is known
    members: list[tuple[Supply, int, Family]] = []
    for supply, gpus, family in families(model, engine, supplies, job, outcome, progress, drafting):
        members.append((supply, gpus, family))
        if "aggregated" in job.modes:
            outcome.ranked += _candidates(family, supply, gpus, job, outcome)
    if {"pd", "af"} & set(job.modes):
        from planner.search.splits import split_candidates  # a search without splits reads no module of theirs

        if progress is not None:
            progress("prefill and decode pools")
        outcome.ranked += split_candidates(members, job, outcome)
    outcome.ranked.sort(key=rank_key(outcome.objective, job.slo.percentile))
    outcome.frontier = pareto(outcome.ranked, job.slo.percentile)
    return outcome


def families(
    model: Model,
    engine: Engine,
    supplies: Sequence[Supply],
    job: Job,
    outcome: Outcome,
    progress: Progress | None = None,
    drafting: Drafting | None = None,
) -> Iterator[tuple[Supply, int, Family]]:
    """Layouts that fit in memory by GPU type, precision and draft, with the GPUs that the budget pays for."""
    for supply in sorted(supplies, key=lambda s: s.accelerator.id):
        gpus = affordable(supply, job)
        most = job.max_gpus_per_replica
        found = layouts(model, supply.accelerator, gpus, outcome.rejections, most, context_widths(job))
        served = supply.engine or engine.on(supply.accelerator.vendor)
        for weights in weight_choices(model, supply.accelerator, job.weights):
            for kv in kv_choices(supply.accelerator, weights, job.kv, engine):
                if progress is not None:
                    progress(f"{supply.accelerator.id} {weights} kv {kv}: {len(found)} layouts")
                plain = Replica(model, supply.accelerator, supply.efficiency, served, weights, kv)
                for replica in drafting.replicas(plain) if drafting else (plain,):
                    legal = found if replica.speculation is None else one_stage(found, replica, outcome.rejections)
                    outcome.candidates += len(legal)
                    family = fitting(replica, legal, job.workload, outcome.rejections)
                    if family is not None:
                        yield supply, gpus, family


def _candidates(family: Family, supply: Supply, gpus: int, job: Job, outcome: Outcome) -> Iterator[Candidate]:
    if job.workload.concurrency is not None:
        return _closed(family, supply, gpus, job, outcome)
    return _open(family, supply, gpus, job, outcome)


def _open(family: Family, supply: Supply, gpus: int, job: Job, outcome: Outcome) -> Iterator[Candidate]:
    """Poisson arrivals: the highest rate that keeps the SLO fixes the replicas for a rate, or the goodput of
    the fleet.
    """
    outcome.points += len(family.layouts) * POINTS_PER_LAYOUT
    batch, most, point = best_batches(family, job.slo, outcome.rejections)
    per_fleet = np.array([gpus // layout.gpus for layout in family.layouts])
    usable = np.isfinite(most) & (per_fleet > 0)
    each = np.where(usable, most, 0.0) / [layout.gpus for layout in family.layouts]
    gpu = supply.accelerator.id
    outcome.per_gpu[gpu] = max(outcome.per_gpu.get(gpu, 0.0), float(each.max()))
    # The fewest GPUs that serve at all are those of one replica; every other objective uses the fleet.
    replicas = np.minimum(per_fleet, 1) if objective_of(job) == "gpus" else per_fleet
    if job.workload.rate is not None:
        needed = np.ceil(job.workload.rate / np.where(usable, most, 1.0) * (1 - 1e-9)).astype(int)
        _record_shortage(family, needed, per_fleet, usable, job.workload.rate, outcome.rejections)
        usable &= needed <= per_fleet
        replicas = per_fleet if objective_of(job) == "latency" else needed
    if not usable.any():
        return
    table = None
    if job.workload.rate is None and objective_of(job) != "latency":
        table = [m for m, ok in zip(metrics_of(family, batch, point), usable, strict=True) if ok]
    family = family.only([layout for layout, ok in zip(family.layouts, usable, strict=True) if ok])
    batch, replicas = batch[usable], replicas[usable]
    if job.workload.rate is not None:
        batch = batch_at_rate(family, job.workload.rate / replicas, batch)
    elif objective_of(job) == "latency":
        batch = np.minimum(batch, 1.0)
    table = metrics_at(family, batch) if table is None else table
    # Less load is not always faster (chunks that ride alone hold up a pipeline): test the limits where it runs.
    rows = [(layout, int(n)) for layout, n in zip(family.layouts, replicas, strict=True)]
    for index in _meeting_slo(family, rows, table, job, outcome.rejections):
        total = job.workload.rate or table[index].rate * replicas[index]
        yield _candidate(family, index, rows[index][1], supply, total, job, table[index], outcome)


def _record_shortage(
    family: Family,
    needed: np.ndarray,
    there: np.ndarray,
    usable: np.ndarray,
    rate: float,
    rejections: Rejections,
) -> None:
    for index in np.flatnonzero(usable & (needed > there)):
        layout = family.layouts[index]
        name = f"{family.replica.accelerator.id} {layout} {family.replica.weights}"
        need, have = int(needed[index]) * layout.gpus, int(there[index]) * layout.gpus
        rejections.add(
            Rejected(
                "fleet too small for the rate",
                name,
                f"{need} GPUs for {rate:g} requests/s",
                f"{have}",
                need / have - 1,
            )
        )


def _closed(family: Family, supply: Supply, gpus: int, job: Job, outcome: Outcome) -> Iterator[Candidate]:
    """Constant requests in flight, spread evenly over every number of replicas that the fleet allows."""
    assert job.workload.concurrency is not None
    rows = [(layout, n) for layout in family.layouts for n in replica_counts(gpus // layout.gpus)]
    if not rows:
        return
    outcome.points += len(rows) * POINTS_PER_ROW
    flat = Layouts.of([layout for layout, _ in rows], column=False)
    counts = np.array([n for _, n in rows], dtype=float)
    share = job.workload.concurrency / (counts * flat.attention_dp)
    point = closed_loop(family.replica, flat, share, lengths_of(job.workload))
    table = _closed_metrics(point, len(rows))
    kept = _meeting_slo(family, rows, table, job, outcome.rejections)
    for index in kept:
        layout, n = rows[index]
        metrics = table[index]
        own = family.only([layout])
        yield _candidate(own, 0, n, supply, metrics.rate * n, job, metrics, outcome)


def _closed_metrics(point: ClosedLoop, rows: int) -> list[Metrics]:
    ttft = {s: np.broadcast_to(point.ttft(s), (rows,)) for s in STATISTICS}
    tpot = {s: np.broadcast_to(point.tpot(s), (rows,)) for s in STATISTICS}
    total = {s: e2e(ttft[s], tpot[s], point.lengths.osl) for s in STATISTICS}

    def at(table: Mapping[str, np.ndarray], i: int) -> dict[str, float]:
        return {s: float(v[i]) for s, v in table.items()}

    return [
        Metrics(
            float(point.rate[i]),
            float(point.steps.batch[i]),
            at(ttft, i),
            at(tpot, i),
            at(total, i),
        )
        for i in range(rows)
    ]


def _meeting_slo(
    family: Family, rows: list[tuple[Layout, int]], table: list[Metrics], job: Job, rejections: Rejections
) -> list[int]:
    kept, percentile = [], job.slo.percentile
    for index, metrics in enumerate(table):
        seen = {"ttft": metrics.ttft, "tpot": metrics.tpot, "e2e": metrics.e2e}
        missed = {m: seen[m][percentile] / limit for m, limit in job.slo.limits.items() if seen[m][percentile] > limit}
        if not missed:
            kept.append(index)
            continue
        worst = max(missed, key=lambda m: missed[m])
        name = f"{family.replica.accelerator.id} {rows[index][0]} x{rows[index][1]} {family.replica.weights}"
        need, have = (
            f"{seen[worst][percentile] * 1e3:.4g} ms",
            f"a limit of {job.slo.limits[worst] * 1e3:.4g} ms",
        )
        rejections.add(Rejected(f"misses {worst} at this load", name, need, have, missed[worst] - 1))
    return kept


def replica_counts(most: int) -> list[int]:
    """1 to ``most``, thinned geometrically when there are many; always with ``most``."""
    if most <= _REPLICA_COUNTS:
        return list(range(1, most + 1))
    return sorted({round(x) for x in np.geomspace(1, most, _REPLICA_COUNTS)})


def _candidate(
    family: Family,
    index: int,
    replicas: int,
    supply: Supply,
    rate: float,
    job: Job,
    metrics: Metrics,
    outcome: Outcome,
) -> Candidate:
    layout = family.layouts[index]
    pool = Share(
        "aggregated", family.replica, layout, replicas, metrics.batch, family.held(family.memory.slots, index),
        family.gpu_memory(index), supply.price,
    )  # fmt: skip
    return Candidate(
        pools=(pool,),
        idle=outcome.fleet - pool.gpus,
        rate=rate,
        osl=job.workload.osl,
        per_replica=metrics,
        lengths=family.lengths,
        concurrency=job.workload.concurrency,
    )
