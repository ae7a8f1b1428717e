"""From a mixture problem to a plan with its proof."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from planner.search.mixture.certificate import Certificate, exact, relative_gap
from planner.search.mixture.consistency import check_problem
from planner.search.mixture.elastic import explain_infeasible
from planner.search.mixture.exact_plan import ExactPlan, gpus_rented, plan_value
from planner.search.mixture.formulation import Formulation, formulate, objective
from planner.search.mixture.plan import MixturePlan, MixtureResult, ReplicaCount
from planner.search.mixture.problem import Goal, MixtureProblem
from planner.search.mixture.prune import MergedClasses, merge_proportional, undominated
from planner.search.mixture.search import Outcome, Search, SolveOptions
from planner.search.mixture.space import Space, build_space
from planner.units import Seconds

KEEP = 1e-9  # relative: later goals may not worsen an earlier one by more


@dataclass(frozen=True, slots=True)
class Reduced:
    """A problem with dominated templates and proportional classes taken out."""

    problem: MixtureProblem
    merged: MergedClasses


def solve_mixture(
    problem: MixtureProblem, options: SolveOptions | None = None, caps: Mapping[Goal, float] | None = None
) -> MixtureResult:
    """Solve for the goals in their order and prove it. Raises InputError for what cannot be meant.

    ``caps`` are upper limits on the values of goals (epsilon constraints of a Pareto front).
    """
    options = options or SolveOptions()
    started = time.monotonic()
    check_problem(problem)
    reduced = reduce_problem(problem)
    form = formulate(build_space(reduced.problem))
    for goal, cap in (caps or {}).items():
        form.model.row("cap", goal.value, list(objective(form, goal).items()), upper=cap)
    outcomes = _in_order(form, options, started + options.seconds, caps or {})
    first = outcomes[0][1]
    seconds = time.monotonic() - started
    certificates = tuple(_certificate(goal, out, options, seconds) for goal, out in outcomes)
    last = outcomes[-1][1]
    serves_nothing = problem.goals[0] is Goal.THROUGHPUT and first.value == 0
    if first.status == "infeasible" or (serves_nothing and first.status == "optimal"):
        return MixtureResult("infeasible", None, certificates, *explain_infeasible(problem))
    if last.plan is None or serves_nothing:
        return MixtureResult("unknown" if serves_nothing else first.status, None, certificates)
    plan = _published(form.space, last.plan, problem, reduced.merged)
    status = "optimal" if all(out.status == "optimal" for _, out in outcomes) else "feasible"
    return MixtureResult(status, plan, certificates)


def reduce_problem(problem: MixtureProblem) -> Reduced:
    """Dominance and class merging, where they keep the optimum."""
    templates = undominated(problem)
    active = tuple(c for c in problem.classes if c.rate > 0)
    if problem.slices is None and not problem.limits.region_floor and Goal.TEMPLATES not in problem.goals:
        merged = merge_proportional(active, templates)
    else:
        merged = MergedClasses(active, {c.id: (c.id,) for c in active})
    return Reduced(replace(problem, templates=templates, classes=merged.classes), merged)


def _in_order(
    form: Formulation, options: SolveOptions, deadline: float, caps: Mapping[Goal, float]
) -> list[tuple[Goal, Outcome]]:
    """Lexicographic: after each goal its value becomes a limit for the goals after it."""
    limits = {goal: exact(cap) for goal, cap in caps.items()}
    outcomes: list[tuple[Goal, Outcome]] = []
    start: list[float] | None = None
    for goal in form.space.problem.goals:
        form.model.minimise(objective(form, goal))
        out = Search(form, goal, options, deadline, limits).run(start)
        outcomes.append((goal, out))
        if out.plan is None or out.value is None or out.stopped_by == "interrupt":
            break
        unit = form.rate_unit if goal is Goal.THROUGHPUT else 1.0
        best = float(out.value) / unit
        terms = list(objective(form, goal).items())
        form.model.row("goal", goal.value, terms, upper=best + KEEP * abs(best))
        limits[goal] = min(out.value, limits.get(goal, out.value))
        start = out.values
    kept = [(g, o) for g, o in outcomes if o.plan is not None]
    return kept or outcomes


def _certificate(goal: Goal, out: Outcome, options: SolveOptions, seconds: Seconds) -> Certificate:
    sign = -1.0 if goal is Goal.THROUGHPUT else 1.0
    value = None if out.value is None else float(out.value) * sign + 0.0  # no minus zero
    bound = out.bound * sign + 0.0 if math.isfinite(out.bound) else None
    gap = relative_gap(value, bound, out.proved) if value is not None and bound is not None else None
    return Certificate(
        objective=goal.value,
        value=value,
        bound=bound,
        gap=None if gap is None or math.isinf(gap) else gap,
        status=out.status,
        solver="+".join(dict.fromkeys(s for s in out.solvers if s not in ("start", "rounding"))) or "none",
        seconds=seconds,
        seed=options.seed,
        time_limit=options.seconds,
        work_limit=options.work,
        stopped_by=out.stopped_by,
        rows_checked=len(out.checks),
    )


def _published(space: Space, plan: ExactPlan, problem: MixtureProblem, merged: MergedClasses) -> MixturePlan:
    replicas = []
    for k, placement in enumerate(space.placements):
        if plan.replicas[k] > 0:
            pool = space.pools[placement.pool]
            offers = {space.offers[o].gpu: space.offers[o].id for o, _ in placement.offers}
            template = pool.template
            replicas.append(
                ReplicaCount(template.id, template.role, template.model, pool.region, offers, plan.replicas[k])
            )
    gpus = {o.id: gpus_rented(space, plan, i) for i, o in enumerate(space.offers)}
    return MixturePlan(
        replicas=tuple(replicas),
        gpus={name: count for name, count in gpus.items() if count},
        nodes={space.offers[o].id: n for o, n in plan.nodes.items() if n},
        assignment=_assignment(space, plan, problem, merged),
        cost=float(plan_value(space, plan, Goal.COST)),
        power=float(plan_value(space, plan, Goal.POWER)),
        gpus_total=sum(gpus.values()),
        rate_multiple=float(plan.rate),
    )


def _assignment(
    space: Space, plan: ExactPlan, problem: MixtureProblem, merged: MergedClasses
) -> dict[str, dict[str, float]]:
    """Requests/s by class and pool; members of a merged class are split as their representative is."""
    rates = {c.id: exact(c.rate) for c in problem.classes}
    table: dict[str, dict[str, Fraction]] = {c.id: {} for c in problem.classes}
    for (p, w), share in sorted(plan.share.items()):
        for member in merged.members[space.classes[w].id]:
            table[member][space.pools[p].id] = share * rates[member]
    return {c: {pool: float(rate) for pool, rate in row.items()} for c, row in table.items()}
