"""The same job on several fleets: each as given, all of them together, and each GPU type without limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.comparison.fleets import FleetOffer, union_of, unlimited
from planner.comparison.menus import Menus, Part, build_menus, scope
from planner.comparison.solver import Marginal, Solved, Solver
from planner.comparison.verdict import Entry, Question, effort_of, winner_of
from planner.errors import InputError
from planner.job.comparing import ComparisonRequest
from planner.job.job import Job
from planner.job.speculating import ASSUMED
from planner.mixed_plan import mixture_plan, model_plan
from planner.plan import Plan
from planner.search.mixed import Menu
from planner.search.mixture import Goal, MixtureResult
from planner.search.reject import rows_of
from planner.search.search import Progress

GOALS = {"cost": Goal.COST, "gpus": Goal.GPUS, "energy": Goal.POWER, "throughput": Goal.THROUGHPUT}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is compared, and who wins why; ``bucketing`` bounds what counting into classes may hide.

    ``scope`` says among what the proofs hold, ``warnings`` what the reader may take for known and is not. Of what was
    evaluated ``units`` could be built; ``rejected`` counts the layouts that fell out by reason, with the nearest miss.
    """

    entries: tuple[Entry, ...]
    marginal: tuple[Marginal, ...]
    winner: str
    why: str
    scope: str = ""
    bucketing: str | None = None
    warnings: tuple[str, ...] = ()
    units: int = 0
    rejected: tuple[tuple[str, int, str], ...] = ()


def compare(
    parts: Sequence[Part], fleets: Sequence[FleetOffer], asked: ComparisonRequest, progress: Progress | None = None
) -> Comparison:
    """Solve the jobs exactly on every fleet, on their union, and on each GPU type without limit.

    With a rate (of the job or of its classes) every fleet carries it as cheaply as it can. Without one each carries as
    much as it can, and an unlimited type what the best given fleet carries. Several models share a fleet at the rate of
    each. Raises InputError where the answer would hang on a price or a power that nobody knows.
    """
    show = progress or (lambda message: None)
    union = union_of(fleets)
    scale = 1.0 if asked.job.workload.rate is not None else None
    goals, warnings = _goals(union, asked)
    if any(one.job.speculate is not None and not one.job.speculate.acceptance for one in asked.jobs):
        warnings = (*warnings, ASSUMED)
    menus = build_menus(parts, union, asked, progress)
    menu = menus.menu
    solver = Solver(menu, asked, goals)
    entries, results, alone_entries = [], [], []
    for fleet in [*fleets, *([union] if len(fleets) > 1 else [])]:
        show(f"solving {fleet.name}")
        outside = _outside(fleet, asked)
        if outside is not None:
            entries.append(Entry(fleet.name, None, outside))
            continue
        results.append(solver.solve(fleet.offers, scale))
        entries.append(_entry(menu, results[-1], asked, fleet, given=fleet is not union))
    carried = scale or max((r.result.plan.rate_multiple for r in results if r.result.plan), default=None)
    for supply in union.supplies:
        show(f"solving {supply.accelerator.id} without limit")
        alone = unlimited(supply, union)
        if carried is None:
            reason = _nearest(menu, alone) or "no given fleet carries the job, so there is no rate to match"
            alone_entries.append(Entry(alone.name, None, reason, False))
            continue
        alone_entries.append(_entry(menu, solver.solve(alone.offers, carried, placed=False), asked, alone, given=False))
    price = {gpu: min(o.price for o in union.offers if o.gpu == gpu) for gpu in {o.gpu for o in union.offers}}
    question = Question(goals[0], scale is not None, not union.unpriced)
    winner, why = winner_of(entries, alone_entries, question, effort_of(menu, price))
    marginal = solver.marginal(union, scale) if winner else ()
    # The union, or the only fleet.
    show("bounding what the classes hide")
    bucketing = _bucketing(parts, union, asked, menus, results[-1].result)
    return Comparison(
        (*entries, *alone_entries), marginal, winner, why, scope(menu, asked), bucketing, warnings, len(menu.templates),
        tuple(rows_of(menu.rejections.values())),
    )  # fmt: skip


def _outside(fleet: FleetOffer, asked: ComparisonRequest) -> str | None:
    """Why a fleet breaks a floor whatever it does: it has no GPUs in that region. The union has some in each."""
    here = {offer.region for offer in fleet.offers}
    for region, share in asked.rules.region_floor:
        if share > 0 and region not in here:
            return f"no GPUs in region {region}, which has to serve at least {share:.4g} of the requests"
    return None


def _goals(union: FleetOffer, asked: ComparisonRequest) -> tuple[tuple[Goal, ...], tuple[str, ...]]:
    """What is optimised, in order; a price that is unknown never decides."""
    unknown = ", ".join(sorted(union.unpriced))
    hint = "give usd_per_gpu_hour in a fleet file, or add a price with --catalog"
    if unknown and asked.rules.budget is not None:
        raise InputError(f"--budget: no price is known of {unknown}", hint=hint)
    if asked.job.workload.rate is None:
        last = (Goal.GPUS,) if unknown else (Goal.COST, Goal.GPUS)
        return (Goal.THROUGHPUT, *last), ()
    goal = GOALS[asked.job.objective or "cost"]
    if goal is Goal.POWER:
        nameless = ", ".join(sorted(s.accelerator.id for s in union.supplies if s.accelerator.power <= 0))
        if nameless:
            raise InputError(f"--objective energy: no power is known of {nameless}", hint="add tdp_w with --catalog")
    if not unknown:
        return tuple(dict.fromkeys((goal, Goal.COST, Goal.GPUS))), ()
    if goal is Goal.COST and (asked.job.objective or union.unpriced != {o.gpu for o in union.offers}):
        raise InputError(
            f"no price is known of {unknown}, so costs cannot be compared", hint=f"{hint}; or --objective gpus"
        )
    if goal is Goal.COST:
        return (Goal.GPUS,), (f"no price is known of {unknown}: fleets are compared by their number of GPUs",)
    return tuple(dict.fromkeys((goal, Goal.GPUS))), ()


def _bucketing(
    parts: Sequence[Part], union: FleetOffer, asked: ComparisonRequest, means: Menus, solved: MixtureResult
) -> str | None:
    """What counting a trace into classes may hide: the cost with the shortest and longest lengths of each class."""
    if all(c.low == c.high for c in asked.classes) or solved.plan is None or asked.job.workload.rate is None:
        return None
    bounds = []
    for corner in ("low", "high"):
        menu = build_menus(parts, union, asked, known=means, corner=corner).menu
        offers = tuple(replace(o, available=None) for o in union.offers)
        result = Solver(menu, asked, (Goal.COST,)).solve(offers, 1.0).result
        bounds.append(None if result.plan is None else result.plan.cost)
    low, high = bounds
    above = "no fleet" if high is None else f"{high:,.4g} $/h"
    below = "0 $/h" if low is None else f"{low:,.4g} $/h"
    return (
        f"{len(asked.classes)} classes stand for the trace. Were every request at the short or the long end of its "
        f"class, the cheapest mixture would cost {below} or {above}, against {solved.plan.cost:,.4g} $/h at the means."
    )


def _entry(menu: Menu, solved: Solved, asked: ComparisonRequest, fleet: FleetOffer, *, given: bool) -> Entry:
    job, result = asked.job, solved.result
    if result.plan is None:
        without = f"; left out, because they miss a limit at their load: {', '.join(solved.left_out)}"
        reason = _reason(menu, result, job, fleet) + (without if solved.left_out else "")
        return Entry(fleet.name, None, reason, given, solved.left_out)
    plan = mixture_plan(menu, result, job, fleet=fleet.gpus or None)
    plan = plan.model_copy(update={"notes": [*solved.notes, *plan.notes]})
    if fleet.unpriced & set(plan.gpus):
        plan = plan.model_copy(update={"cost_usd_per_hour": None, "usd_per_million_output_tokens": None})
    shares: tuple[tuple[str, Plan], ...] = ()
    if len(asked.jobs) > 1:
        prices = {offer.id: math.nan if offer.gpu in fleet.unpriced else offer.price for offer in fleet.offers}
        shares = tuple((a.name, model_plan(menu, result, a.name, a.job, plan, prices)) for a in asked.jobs)
    return Entry(fleet.name, plan, None, given, solved.left_out if solved.matters else (), shares)


def _reason(menu: Menu, result: MixtureResult, job: Job, fleet: FleetOffer) -> str:
    """Why a fleet has no plan: what to raise, or else how much less to ask; or the nearest miss of its layouts."""
    if result.status == "unbounded":
        return "nothing limits what it gives: name a rate, a count for every offer, or --budget"
    if result.status != "infeasible":
        return f"no plan within the time limit ({result.certificate.stopped_by or result.status})"
    nearest = _nearest(menu, fleet)
    if nearest is not None:
        return nearest
    raise_limits = " and ".join(r.message for r in result.relax)
    asks_less = job.workload.rate is not None or not raise_limits
    drop = " and ".join(r.message for r in result.shortfall) if asks_less else ""
    if len(menu.classes) == 1:
        drop = drop.removeprefix("request class all: ").replace("of its ", "of the ", 1)
    ways = dict.fromkeys(part for part in (raise_limits, drop) if part)
    return "; else ".join(ways) or "the limits contradict each other"


def _nearest(menu: Menu, fleet: FleetOffer) -> str | None:
    """The nearest miss of a fleet on whose GPU types no layout serves some class; None where each is served."""
    gpus = {supply.accelerator.id for supply in fleet.supplies}
    served = {klass for template in menu.of(sorted(gpus)) for klass, rate in template.capacity.items() if rate > 0}
    missing = [c.name for c in menu.classes if c.name not in served]
    if not missing:
        return None
    rows = [row for gpu in sorted(gpus) if gpu in menu.rejections for row in menu.rejections[gpu].rows()]
    usable = [row for row in rows if row[0].startswith(("misses", "does not fit", "no stable"))] or rows
    subject = "" if len(menu.classes) == 1 else f"class {missing[0]}: "
    if not usable:
        return f"{subject}no layout serves the job"
    reason, _, nearest = min(usable, key=lambda row: (not row[0].startswith("misses"), -row[1]))
    return f"{subject}no layout serves it: {reason}; nearest: {nearest}"
