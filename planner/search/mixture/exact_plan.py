"""A plan in exact numbers, drawn from what a solver returned in floating point."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from planner.search.mixture.certificate import exact
from planner.search.mixture.constraints import AFTER_PREFILL, ENTRY, LATE_ENTRY
from planner.search.mixture.formulation import Formulation
from planner.search.mixture.patterns import fewest_nodes
from planner.search.mixture.problem import Goal, Role
from planner.search.mixture.space import Space, nodes_of_pieces

NOISE = 1e-9  # a smaller part of a class is rounding left by the solver
SLACK = Fraction(1, 10**9)  # relative: conditions hold to this
LOAD_SLACK = Fraction(1, 10**6)  # replicas: however many there are, less than this is forgiven


@dataclass(slots=True)
class ExactPlan:
    """Replicas by placement, shares of classes by (pool, class), nodes by offer, common multiple of the rates."""

    replicas: list[int]
    share: dict[tuple[int, int], Fraction]
    nodes: dict[int, int] = field(default_factory=dict)
    rate: Fraction = Fraction(1)

    def of_pool(self, space: Space, pool: int) -> int:
        """Replicas of a pool over all its placements."""
        return sum(self.replicas[k] for k in space.of_pool(pool))


def draw_plan(form: Formulation, values: list[float]) -> ExactPlan:
    """Round replicas, make the shares add up exactly, and grant what rounding took from the capacity rows."""
    space = form.space
    rate = Fraction(1)
    if form.rate is not None:
        rate = exact(max(0.0, values[form.rate])) * exact(form.rate_unit)
    plan = ExactPlan([max(0, round(values[c])) for c in form.replicas], _shares(form, values, rate), {}, rate)
    if form.rate is None:
        _grant_replicas(form, plan)
    else:
        _lower_to_capacity(form, plan)
    plan.nodes = {offer: nodes_taken(space, plan, offer) for offer in form.nodes}
    return plan


def _shares(form: Formulation, values: list[float], rate: Fraction) -> dict[tuple[int, int], Fraction]:
    raw: dict[int, dict[int, Fraction]] = {}  # by class and pool
    for (p, w), column in form.share.items():
        value = values[column]
        if form.space.problem.slices is not None:
            value = float(round(value))
        if value > NOISE:
            raw.setdefault(w, {})[p] = exact(value)
    share: dict[tuple[int, int], Fraction] = {}
    for w, request in enumerate(form.space.classes):
        settled = _settle(form.space, raw.get(w, {}), request.prefilled, rate)
        share.update({(p, w): v for p, v in settled.items()})
    return share


def _settle(space: Space, mine: dict[int, Fraction], prefilled: bool, rate: Fraction) -> dict[int, Fraction]:
    """Scale each stage of one class so that what enters equals the rate and every later stage what it receives."""
    pools = space.pools
    entry = [p for p in mine if pools[p].template.role in (LATE_ENTRY if prefilled else ENTRY)]
    settled = _scaled(mine, entry, rate)
    for region in sorted({p.region for p in pools}):
        if not prefilled:
            sent = [p for p in entry if pools[p].template.role is Role.PREFILL and pools[p].region == region]
            later = [p for p in mine if pools[p].template.role in AFTER_PREFILL and pools[p].region == region]
            settled.update(_scaled(mine, later, sum((settled[p] for p in sent), Fraction(0))))
        for fabric in sorted({p.template.fabric for p in pools}):
            here = [p for p in mine if (pools[p].region, pools[p].template.fabric) == (region, fabric)]
            left = [p for p in here if pools[p].template.role is Role.ATTENTION]
            right = [p for p in here if pools[p].template.role is Role.FFN]
            settled.update(_scaled(mine, right, sum((settled.get(p, Fraction(0)) for p in left), Fraction(0))))
    return {p: v for p, v in settled.items() if v > 0}


def _scaled(mine: dict[int, Fraction], pools: list[int], total: Fraction) -> dict[int, Fraction]:
    have = sum((mine[p] for p in pools), Fraction(0))
    return {p: mine[p] * total / have for p in pools} if have > 0 else {}


def busy_replicas(space: Space, plan: ExactPlan, pool: int) -> Fraction:
    """Exact load of a pool in replicas: sum of share * rate / capacity."""
    total = Fraction(0)
    for (p, w), share in plan.share.items():
        if p == pool:
            request = space.classes[w]
            total += share * exact(request.rate) / exact(space.pools[p].capacity(request))
    return total


def replicas_for(busy: Fraction) -> int:
    """Whole replicas for a load in replicas: at least one, forgiving the last digits of floating point."""
    return max(1, math.ceil(busy - min(busy * SLACK, LOAD_SLACK))) if busy > 0 else 0


def _grant_replicas(form: Formulation, plan: ExactPlan) -> None:
    """Solvers may overfill a row by their tolerance; then one more replica of the cheapest placement is needed."""
    space = form.space
    spares = space.problem.limits.spare_replicas
    for p, pool in enumerate(space.pools):
        busy = busy_replicas(space, plan, p)
        if busy == 0:
            continue
        missing = replicas_for(busy / exact(pool.utilisation)) + spares - plan.of_pool(space, p)
        places = space.of_pool(p)
        if form.model.variables[form.replicas[places[0]]].scale != 1.0 and missing < 0:
            biggest = max(places, key=lambda k: plan.replicas[k])
            plan.replicas[biggest] = max(0, plan.replicas[biggest] + missing)
        elif missing > 0:
            plan.replicas[min(places, key=lambda k: _price(space, k))] += missing


def _lower_to_capacity(form: Formulation, plan: ExactPlan) -> None:
    """Lower all rates by one factor until every pool's load fits: capacity rows are homogeneous in the shares."""
    space, spares = form.space, form.space.problem.limits.spare_replicas
    factor = Fraction(1)
    for p, pool in enumerate(space.pools):
        busy = busy_replicas(space, plan, p)
        if busy == 0:
            continue
        have = exact(pool.utilisation) * max(0, plan.of_pool(space, p) - spares)
        factor = min(factor, have / busy)
    if factor < 1:
        plan.rate *= factor
        plan.share = {key: share * factor for key, share in plan.share.items()}


def _price(space: Space, placement: int) -> float:
    return sum(count * space.offers[o].price for o, count in space.placements[placement].offers)


def nodes_taken(space: Space, plan: ExactPlan, offer: int) -> int:
    """Fewest nodes of an offer that hold its replicas."""
    node = space.offers[offer].node_gpus
    small: dict[int, int] = {}
    whole = 0
    for k, count in enumerate(plan.replicas):
        for size, parts in space.pieces(k, offer).items():
            if size <= node:
                small[size] = small.get(size, 0) + parts * count
            else:
                whole += count * parts * nodes_of_pieces(space.offers[offer], (size,))
    return whole + fewest_nodes(small, node)


def gpus_rented(space: Space, plan: ExactPlan, offer: int) -> int:
    """GPUs paid for: whole nodes where the offer comes in nodes, else those of its replicas."""
    if space.offers[offer].node_gpus > 1:
        return plan.nodes.get(offer, 0) * space.offers[offer].node_gpus
    return sum(
        plan.replicas[k] * count
        for k, placement in enumerate(space.placements)
        for index, count in placement.offers
        if index == offer
    )


def gpus_working(space: Space, plan: ExactPlan, *, spot_only: bool) -> int:
    """GPUs that replicas stand on, without what lies idle in their nodes."""
    return sum(
        plan.replicas[k] * count
        for k, placement in enumerate(space.placements)
        for index, count in placement.offers
        if space.offers[index].spot or not spot_only
    )


def plan_value(space: Space, plan: ExactPlan, goal: Goal) -> Fraction:
    """The goal's value in its unit ($/h, multiple of the rates, W, GPUs, templates)."""
    if goal is Goal.THROUGHPUT:
        return plan.rate
    if goal is Goal.POWER:
        watts = (exact(space.pools[x.pool].template.power) for x in space.placements)
        return sum((n * w for n, w in zip(plan.replicas, watts, strict=True)), Fraction(0))
    if goal is Goal.TEMPLATES:
        return Fraction(len({p for p, _ in plan.share}))
    total = Fraction(0)
    for index, offer in enumerate(space.offers):
        total += gpus_rented(space, plan, index) * (exact(offer.price) if goal is Goal.COST else 1)
    return total
