"""Assemble the linear model of a mixture problem: columns, rows by law, objective by goal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from planner.search.mixture.linear import LinearModel
from planner.search.mixture.problem import Goal, Role
from planner.search.mixture.space import Space

HUGE_COUNT = 1e7  # above this, one replica more or less is below any price's last digit
UNBOUNDED_SHARE = 1e6  # largest share of a class where no sum of capacities bounds it
TINY_LOAD = 1e-4  # below this, a solver's tolerance could serve a class with no replica at all


@dataclass(slots=True)
class Formulation:
    """The model and which column is what.

    Attributes
    ----------
    replicas : column of the integer replicas of each placement.
    share : column of the part of a class (by index) that a pool serves, in units of the class's rate.
    nodes : column of the nodes taken from an offer, for offers that come in nodes.
    used : column (binary) that says whether a pool serves anything.
    rate : column of the common multiple of all rates, as a fraction of ``rate_unit`` (throughput only).
    slices : a share column counts slices of this size (1 = a fraction).
    """

    space: Space
    model: LinearModel
    replicas: list[int] = field(default_factory=list)
    share: dict[tuple[int, int], int] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    rate: int | None = None
    rate_unit: float = 1.0
    rate_bounded: bool = True

    @property
    def slice_size(self) -> float:
        """Part of a class that one unit of a share column stands for."""
        return 1.0 if self.space.problem.slices is None else 1.0 / self.space.problem.slices

    def load(self, pool: int, index: int) -> float:
        """Replicas kept busy by one unit of the share column: rate / capacity * slice size * rate unit."""
        load = self.space.load(pool, self.space.classes[index])
        return (load or 0.0) * self.slice_size * self.rate_unit

    def gpu_terms(self, offer: int) -> list[tuple[int, float]]:
        """GPUs rented from an offer: node size * nodes, or the GPUs of its replicas where there are no nodes."""
        if offer in self.nodes:
            return [(self.nodes[offer], float(self.space.offers[offer].node_gpus))]
        return [
            (self.replicas[k], float(count))
            for k, placement in enumerate(self.space.placements)
            for index, count in placement.offers
            if index == offer
        ]


def formulate(space: Space) -> Formulation:
    """Build all columns and rows; the objective is that of the first goal."""
    from planner.search.mixture import constraints as law

    unit = throughput_unit(space)
    bounded = unit < math.inf
    form = Formulation(space, LinearModel(), rate_unit=unit if bounded else 1.0, rate_bounded=bounded)
    _add_columns(form)
    law.serve_the_demand(form)
    law.balance_prefill_and_decode(form)
    law.balance_attention_and_ffn(form)
    law.stay_within_capacity(form)
    law.serve_only_with_replicas(form)
    law.stay_within_kv_links(form)
    law.route_kv_between_fabrics(form)
    law.pack_nodes(form)
    law.stay_within_inventory(form)
    law.stay_within_budget(form)
    law.stay_within_power(form)
    law.limit_spot_share(form)
    law.serve_from_each_region(form)
    form.model.minimise(objective(form, space.problem.goals[0]))
    return form


def objective(form: Formulation, goal: Goal) -> dict[int, float]:
    """Coefficients of a goal, to be minimised (throughput is negated)."""
    space = form.space
    terms: dict[int, float] = {}
    if goal is Goal.THROUGHPUT:
        assert form.rate is not None
        return {form.rate: -1.0}
    if goal is Goal.TEMPLATES:
        return dict.fromkeys(form.used.values(), 1.0)
    if goal is Goal.POWER:
        for k, placement in enumerate(space.placements):
            terms[form.replicas[k]] = space.pools[placement.pool].template.power
        return terms
    for index, offer in enumerate(space.offers):
        for column, count in form.gpu_terms(index):
            terms[column] = terms.get(column, 0.0) + count * (offer.price if goal is Goal.COST else 1.0)
    return terms


def throughput_unit(space: Space) -> float:
    """Multiple of the rates that the fleet could carry if each class had it alone: keeps the rate column below 1.

    Per class aggregated + min(prefill, decode + min(attention, FFN)), the least over the classes. Infinite where
    no inventory, budget or power bounds a stage; 1 where throughput is no goal.
    """
    if space.problem.goals[0] is not Goal.THROUGHPUT:
        return 1.0
    most = [most_replicas(space, k) for k in range(len(space.placements))]
    best = math.inf
    for request in space.classes:
        role = dict.fromkeys(Role, 0.0)
        for k, placement in enumerate(space.placements):
            pool = space.pools[placement.pool]
            capacity = pool.capacity(request)
            if capacity > 0:
                role[pool.template.role] += most[k] * capacity
        late = role[Role.DECODE] + min(role[Role.ATTENTION], role[Role.FFN])
        split = late if request.prefilled else min(role[Role.PREFILL], late)
        best = min(best, (role[Role.AGGREGATED] + split) / request.rate)
    return best if best > 0 else 1.0


def most_replicas(space: Space, placement: int) -> float:
    """Replicas of a placement that inventory, budget and power allow when it has them alone."""
    limits, item = space.problem.limits, space.placements[placement]
    bounds = [math.inf]
    price = 0.0
    for index, count in item.offers:
        offer = space.offers[index]
        price += count * offer.price
        if offer.available is not None:
            bounds.append(offer.available // count)
    watts = space.pools[item.pool].template.power
    if limits.budget is not None and price > 0:
        bounds.append(math.floor(limits.budget / price * (1 + 1e-12)))
    if limits.power is not None and watts > 0:
        bounds.append(math.floor(limits.power / watts * (1 + 1e-12)))
    return min(bounds)


def _add_columns(form: Formulation) -> None:
    space, model = form.space, form.model
    problem = space.problem
    if problem.goals[0] is Goal.THROUGHPUT:
        form.rate = model.variable("rate")
    slices = problem.slices
    loads = [0.0] * len(space.pools)
    for p, pool in enumerate(space.pools):
        for w, request in enumerate(space.classes):
            load = space.load(p, request)
            if load is not None:
                upper = float(slices or 1) if form.rate is None else math.inf
                name = f"share {pool.id} {request.id}"
                form.share[p, w] = model.variable(name, upper=upper, integer=slices is not None)
                loads[p] = max(loads[p], load * form.rate_unit / pool.utilisation)
        if problem.limits.spare_replicas or Goal.TEMPLATES in problem.goals:
            form.used[p] = model.variable(f"used {pool.id}", upper=1.0, integer=True)
    for k, placement in enumerate(space.placements):
        pool = space.pools[placement.pool]
        size = loads[placement.pool]
        huge = size > HUGE_COUNT and problem.goals[0] is not Goal.THROUGHPUT
        scale = 10.0 ** math.floor(math.log10(size)) if huge else 1.0
        most = most_replicas(space, k) if space.problem.limits.spare_replicas == 0 else math.inf
        form.replicas.append(
            model.variable(
                f"replicas {pool.id} {k}",
                upper=most if most < 1e6 else math.inf,
                integer=not huge,
                scale=scale,
            )
        )
    for index, offer in enumerate(space.offers):
        used = any(index == i for placement in space.placements for i, _ in placement.offers)
        if used and offer.node_gpus > 1:
            form.nodes[index] = model.variable(f"nodes {offer.id}", integer=True)
