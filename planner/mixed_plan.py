"""A mixture of unequal replicas, written down as a Plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from planner.job.job import Job
from planner.plan import Certificate, Latency, Performance, Plan, Pool, significant
from planner.planned import plan_of
from planner.search.mixed import Menu
from planner.search.mixture import MixturePlan, MixtureResult, ReplicaCount
from planner.search.mixture.space import LAST_NODE
from planner.search.ranking import Candidate, Outcome
from planner.search.rerate import at_rate

_FULL = 1 - 1e-4
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def mixture_plan(menu: Menu, result: MixtureResult, job: Job, *, rank: int = 1, fleet: int | None = None) -> Plan:
    """The plan of a solved mixture; ``fleet`` GPUs there are, None if unlimited.

    A pool that serves one request class runs at the load that it was given; with several it is shown at its capacity,
    which is on the safe side. Means are weighted by requests, percentiles are those of the slowest pool.
    """
    assert result.plan is not None
    used = {kind.template for kind in result.plan.replicas}
    priced = all(c.cost is not None for (template, _), c in menu.candidates.items() if template in used)
    parts = [pool_parts(menu, result.plan, kind) for kind in result.plan.replicas]
    plans = [plan_of(c, 1, Outcome(ranked=[c]), job.slo.percentile) for part in parts for c, _ in part]
    rates = [rate for part in parts for _, rate in part]
    predicted = combined([p.predicted for p in plans], rates, result.plan.gpus_total)
    cost = result.plan.cost if priced else None
    pools = [pool for part in parts for pool in _widest(part, job)]
    basis = "modelled" if any(p.basis == "modelled" for p in plans) else "calibrated"
    band = {key: _scaled(plans[0], key, predicted, job.slo.percentile) for key in plans[0].band}
    return Plan(
        rank=rank,
        mode=parts[0][0][0].mode if len(parts) == 1 else "mixed",
        gpus=_gpus(result.plan),
        gpus_total=result.plan.gpus_total,
        gpus_idle=0 if fleet is None else fleet - result.plan.gpus_total,
        cost_usd_per_hour=None if cost is None else significant(cost),
        usd_per_million_output_tokens=None
        if cost is None
        else significant(cost / 3600 / max(predicted.output_tok_s, 1e-9) * 1e6),
        predicted=predicted,
        simulated=None,
        notes=_notes(menu, result.plan),
        pools=pools,
        certificate=_certificate(result, predicted),
        basis=basis,
        calibrated_by={gpu: by for p in plans for gpu, by in p.calibrated_by.items()},
        band=band,
    )


def model_plan(
    menu: Menu, result: MixtureResult, name: str, job: Job, whole: Plan, prices: Mapping[str, float]
) -> Plan:
    """The part of a mixture that serves one job: its replicas, the GPUs that they stand on and what these cost.

    GPUs that lie idle in rented nodes belong to no job. ``prices`` by offer, $ per GPU and hour, nan if unknown; the
    proof is that of the ``whole``.
    """
    assert result.plan is not None
    sizes = {unit.id: unit.gpus for unit in menu.templates}
    mine = tuple(kind for kind in result.plan.replicas if kind.model == name)
    gpus: dict[str, int] = {}
    for kind in mine:
        for gpu, offer in kind.offers.items():
            gpus[offer] = gpus.get(offer, 0) + kind.count * sizes[kind.template][gpu]
    cost = math.fsum(count * prices[offer.removesuffix(LAST_NODE)] for offer, count in gpus.items())
    rows = {klass: row for klass, row in result.plan.assignment.items() if menu.owner(klass) == name}
    share = replace(
        result.plan, replicas=mine, gpus=gpus, nodes={}, assignment=rows, cost=cost, gpus_total=sum(gpus.values())
    )
    plan = mixture_plan(menu, replace(result, plan=share), job)
    changes: dict[str, object] = {"certificate": whole.certificate}
    if math.isnan(cost):
        changes |= {"cost_usd_per_hour": None, "usd_per_million_output_tokens": None}
    return plan.model_copy(update=changes)


def mixture_parts(menu: Menu, plan: MixturePlan) -> list[tuple[Candidate, float]]:
    """Every pool of a mixture as a candidate at its load, with the requests/s that it serves."""
    return [pair for kind in plan.replicas for pair in pool_parts(menu, plan, kind)]


def pool_parts(menu: Menu, plan: MixturePlan, kind: ReplicaCount) -> list[tuple[Candidate, float]]:
    """What one kind of replica serves: a candidate and the requests/s of each class.

    The optimiser assigns classes to pools, which are named after template and region; the replicas of a pool may stand
    on several offers, and each serves the same share.
    """
    name = _pool_name(kind)
    share = kind.count / sum(other.count for other in plan.replicas if _pool_name(other) == name)
    rates = {klass: row[name] * share for klass, row in plan.assignment.items() if row.get(name)}
    if not rates:
        # Nothing is assigned to spare replicas; they are shown as they would serve the first class they can.
        rates = {_served(menu, kind): 0.0}
    found = []
    for klass, rate in rates.items():
        unit = menu.candidates[kind.template, klass]
        # At its capacity a unit is known exactly; finding its batch again would only add rounding.
        if len(rates) == 1 and 0 < rate / kind.count < unit.rate * _FULL:
            unit = at_rate(unit, rate / kind.count)
        found.append((_copies(unit, kind.count), rate))
    return found


def _copies(unit: Candidate, count: int) -> Candidate:
    """So many equal units side by side: each keeps its own queue, so latencies stay those of one."""
    pools = tuple(replace(pool, replicas=pool.replicas * count) for pool in unit.pools)
    return replace(unit, pools=pools, rate=unit.rate * count)


def _served(menu: Menu, kind: ReplicaCount) -> str:
    """The first class that a template can serve."""
    return next(klass for template, klass in menu.candidates if template == kind.template)


def _pool_name(kind: ReplicaCount) -> str:
    """As the optimiser names pools in its assignment."""
    return f"{kind.template}@{kind.region}" if kind.region else kind.template


def _gpus(plan: MixturePlan) -> dict[str, int]:
    """GPUs by type: several offers may be of one type."""
    types = {offer: gpu for kind in plan.replicas for gpu, offer in kind.offers.items()}
    counts: dict[str, int] = {}
    for offer, count in plan.gpus.items():
        if count:
            counts[types[offer]] = counts.get(types[offer], 0) + count
    return counts


def _widest(part: list[tuple[Candidate, float]], job: Job) -> list[Pool]:
    """The pools as the class with most requests sees them, with the requests/s of all classes."""
    candidate = max(part, key=lambda pair: pair[1])[0]
    pools = plan_of(candidate, 1, Outcome(ranked=[candidate]), job.slo.percentile).pools
    rate = significant(sum(rate for _, rate in part))
    return [pool.model_copy(update={"request_rate": rate}) for pool in pools]


def combined(parts: list[Performance], rates: list[float], gpus: int) -> Performance:
    """Performance of pools side by side: ``rates`` requests/s each."""
    total = sum(rates)
    output = sum(p.output_tok_s * rate / p.request_rate for p, rate in zip(parts, rates, strict=True))

    def together(metric: str) -> Latency:
        values: Mapping[str, list[float]] = {
            name: [float(getattr(getattr(p, metric), name)) for p in parts] for name in _STATISTICS
        }
        mean = sum(value * rate for value, rate in zip(values["mean"], rates, strict=True)) / total
        slowest = {name: significant(max(column)) for name, column in values.items() if name != "mean"}
        return Latency(mean=significant(mean), **slowest)

    return Performance(
        output_tok_s=significant(output),
        output_tok_s_per_gpu=significant(output / gpus),
        request_rate=significant(total),
        ttft_ms=together("ttft_ms"),
        tpot_ms=together("tpot_ms"),
        e2e_ms=together("e2e_ms"),
    )


def _scaled(plan: Plan, key: str, predicted: Performance, percentile: str) -> tuple[float, float]:
    """The band of a quantity, moved from one pool to the mixture: the same ratios hold."""

    def shown(performance: Performance) -> float:
        if key == "output_tok_s":
            return performance.output_tok_s
        return float(getattr(getattr(performance, key), percentile))

    ratio = shown(predicted) / max(shown(plan.predicted), 1e-12)
    low, high = plan.band[key]
    return significant(low * ratio), significant(high * ratio)


def _certificate(result: MixtureResult, predicted: Performance) -> Certificate:
    """The proof of the optimiser; throughput in output tokens/s instead of its multiple of the asked mix."""
    proof = result.certificate
    value, bound = proof.value or 0.0, proof.bound or 0.0  # a search that was stopped early may have no bound
    scale = predicted.output_tok_s / value if proof.objective == "throughput" and value else 1.0
    return Certificate(
        objective=proof.objective,
        value=significant(value * scale),
        bound=significant(bound * scale),
        gap=significant(1.0 if proof.gap is None else proof.gap),
        status="optimal" if proof.status == "optimal" else "feasible",
        solver=proof.solver,
        rows_checked=proof.rows_checked,
    )


def _notes(menu: Menu, plan: MixturePlan) -> list[str]:
    """What is rented where a type has several offers, and who serves which class where there are several."""
    rented = {offer: count for offer, count in plan.gpus.items() if count}
    notes = [] if set(rented) <= set(_gpus(plan)) else [f"{count} x {offer}" for offer, count in rented.items()]
    split = [kind for kind in plan.replicas if menu.candidates[kind.template, _served(menu, kind)].mode == "pd"]
    notes += [f"{kind.count} pod{'s' if kind.count > 1 else ''}, each {kind.template}" for kind in split]
    if len(menu.classes) == 1:
        return notes
    return notes + [
        f"{name}: " + ", ".join(f"{rate:.3g}/s on {pool}" for pool, rate in sorted(row.items()) if rate > 0)
        for name, row in plan.assignment.items()
    ]
