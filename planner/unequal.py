"""Unequal replicas inside a search: a mixture that carries more, or costs less, than the best equal replicas.

Equal replicas waste what does not divide: 7 GPUs are 3 pairs and a single. The exact optimiser is asked only where its
linear bound says that it can gain, because even importing it takes longer than the rest of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.architecture.model import Model
from planner.job.job import Job
from planner.plan import Plan, significant
from planner.search.ranking import Outcome
from planner.search.supply import Supply
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine
from planner.simulation.check import DERATES, PROBLEM, check, performance

if TYPE_CHECKING:
    from planner.search.mixed import Menu
    from planner.search.mixture import MixtureResult

# Below this gain a mixture is not worth the trouble of running different replicas.
WORTH = 0.005
_SECONDS = 10.0
# For a given rate, replicas are planned with slack until the simulation keeps the limits.
_UTILISATIONS = (1.0, 0.93, 0.86)


def unequal_plan(
    model: Model,
    engine: Engine,
    supplies: Sequence[Supply],
    job: Job,
    outcome: Outcome,
    drafting: Drafting | None = None,
) -> Plan | None:
    """The best mixture of aggregated replicas, when it beats every equal-replica plan by ``WORTH``; else None.

    Only for Poisson arrivals, and for the objectives that a mixture can change: throughput, and cost of a rate.
    """
    rated = job.workload.rate is not None
    if job.workload.concurrency is not None or outcome.objective not in ("throughput", "cost"):
        return None
    if "aggregated" not in job.modes:
        return None
    unpriced = any(s.price is None for s in supplies)
    if (outcome.objective == "cost") != rated or (unpriced and (rated or job.budget is not None)):
        return None
    value = _best_equal(outcome, rated)
    # What the search has seen of all layouts bounds every mixture of them, unless a budget left some out.
    if job.budget is None and not _gains(_bound(outcome.per_gpu, supplies, job), value, rated):
        return None
    from planner.job.classes import single_class
    from planner.search.mixed import build_menu

    classes = single_class(job.workload.isl, job.workload.osl, job.workload.rate)
    menu = build_menu(model, engine, supplies, job, classes, drafting=drafting)
    if not menu.templates or not _gains(_bound(_per_gpu(menu), supplies, job), value, rated):
        return None
    plan = None
    for share in _UTILISATIONS if rated else (1.0,):
        tried = _solved(menu, supplies, job, outcome, value, share)
        plan = plan or tried
        if tried is None or not any(note.startswith(PROBLEM) for note in tried.notes):
            return tried or plan
    return plan


def _solved(
    menu: Menu, supplies: Sequence[Supply], job: Job, outcome: Outcome, value: float, utilisation: float
) -> Plan | None:
    """The optimal mixture with every replica at most at ``utilisation`` of its capacity, if it gains on ``value``."""
    from planner.mixed_plan import mixture_plan
    from planner.search.mixed import UNPRICED, solve_fleet
    from planner.search.mixture import Limits, Offer, SolveOptions

    rated = job.workload.rate is not None
    limits = Limits(utilisation=utilisation, budget=job.budget)
    options = SolveOptions(seconds=_SECONDS, seed=max(job.seed, 1))
    offers = tuple(
        Offer(s.accelerator.id, s.accelerator.id, UNPRICED if s.price is None else s.price, s.count) for s in supplies
    )
    result = solve_fleet(menu, offers, scale=1.0 if rated else None, limits=limits, options=options)
    if result.plan is None or (outcome.ranked and len(result.plan.replicas) < 2):
        return None
    if not _gains(result.plan.cost if rated else result.plan.rate_multiple, value, rated):
        return None
    plan = mixture_plan(menu, result, job, fleet=sum(s.count for s in supplies))
    return _checked(menu, result, plan, job) if job.simulate_top else plan


def _checked(menu: Menu, result: MixtureResult, plan: Plan, job: Job) -> Plan:
    """The plan as simulated, pool by pool; a load of the planner's own choice is lowered until the limits hold."""
    from planner.mixed_plan import combined, mixture_parts, mixture_plan

    assert result.plan is not None
    free = job.workload.rate is None
    for share in (1.0, *DERATES) if free else (1.0,):
        assignment = {name: {p: r * share for p, r in row.items()} for name, row in result.plan.assignment.items()}
        lighter = replace(result.plan, assignment=assignment)
        parts = mixture_parts(menu, lighter)
        checks = [check(candidate, _fixed(job)) for candidate, _ in parts]
        problems = [f"{PROBLEM}{checked.problem}" for checked in checks if checked.problem]
        if not problems:
            break
    seen = [performance(checked) for checked in checks]
    known = [p for p in seen if p is not None]
    simulated = combined(known, [rate for _, rate in parts], plan.gpus_total) if len(known) == len(seen) else None
    lowered = f"load lowered to {share:.0%} of the closed form, where the simulation keeps the limits"
    at_load = mixture_plan(menu, replace(result, plan=lighter), job)
    cost = plan.cost_usd_per_hour
    return plan.model_copy(
        update={
            "simulated": simulated,
            "notes": [*plan.notes, *([lowered] if share < 1 else []), *dict.fromkeys(problems)],
            "predicted": at_load.predicted,
            "pools": at_load.pools,
            "band": at_load.band,
            "usd_per_million_output_tokens": None
            if cost is None
            else significant(cost / 3600 / at_load.predicted.output_tok_s * 1e6),
        }
    )


def _best_equal(outcome: Outcome, rated: bool) -> float:
    """What the best equal replicas reach: $/h for a rate, requests/s without; the worst possible without any."""
    if not outcome.ranked:
        return float("inf") if rated else 0.0
    best = outcome.ranked[0]
    return (best.cost if best.cost is not None else float("inf")) if rated else best.rate


def _fixed(job: Job) -> Job:
    """The job with a load of its own, so that the simulation of a pool keeps the load that the mixture gives it."""
    return job.model_copy(update={"workload": job.workload.model_copy(update={"rate": job.workload.rate or 1.0})})


def _per_gpu(menu: Menu) -> dict[str, float]:
    """Most requests/s of a GPU of each type in any template."""
    best: dict[str, float] = {}
    for template in menu.templates:
        (gpu,) = template.gpus
        best[gpu] = max(best.get(gpu, 0.0), max(template.capacity.values()) / template.size)
    return best


def _bound(best: Mapping[str, float], supplies: Sequence[Supply], job: Job) -> float:
    """Linear bound from the best requests/s of a GPU: all GPUs at it; for a rate, at the best price per request."""
    if job.workload.rate is None:
        return sum(s.count * best.get(s.accelerator.id, 0.0) for s in supplies)
    prices = [s.price / best[s.accelerator.id] for s in supplies if s.price is not None and best.get(s.accelerator.id)]
    return job.workload.rate * min(prices, default=float("inf"))


def _gains(new: float, old: float, rated: bool) -> bool:
    return new < old * (1 - WORTH) if rated else new > old * (1 + WORTH)
