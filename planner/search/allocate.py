"""``planner allocate``: the exact mixture for capacities that the user measured.

Minimise sum cost_g n_g subject to: every class is fully assigned; for each kind
sum_w rate_assigned / capacity <= headroom * n_g; n_g integer, n_g <= available_g.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from planner.job.allocation import AllocationOffer, AllocationProblem
from planner.search.mixture import (
    Certificate,
    Limits,
    MixtureProblem,
    MixtureResult,
    Offer,
    RequestClass,
    SolveOptions,
    Template,
    solve_mixture,
)
from planner.search.mixture.certificate import exact
from planner.search.mixture.exact_plan import replicas_for
from planner.units import PerSecond, Seconds, UsdPerHour


@dataclass(frozen=True, slots=True)
class SingleType:
    """Serving everything with one machine type."""

    count: int
    cost: UsdPerHour


@dataclass(frozen=True, slots=True)
class AllocationResult:
    """The cheapest mixture with its proof.

    Attributes
    ----------
    status : optimal, feasible (stopped with a gap), infeasible, or unknown (stopped before any plan).
    assignment : requests/s by class and offer.
    single_type : what each machine type alone would cost; None where it cannot, or there are too few.
    reasons : if infeasible, the classes and limits that cannot be met, one sentence each.
    """

    status: str
    counts: Mapping[str, int]
    cost: UsdPerHour | None
    assignment: Mapping[str, Mapping[str, PerSecond]]
    certificate: Certificate
    single_type: Mapping[str, SingleType | None]
    reasons: tuple[str, ...]
    elapsed: Seconds

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of ``planner allocate -o json``."""
        proof = self.certificate
        singles = {
            name: None if single is None else {"count": single.count, "cost_usd_per_hour": single.cost}
            for name, single in self.single_type.items()
        }
        return {
            "status": self.status,
            "counts": dict(self.counts),
            "cost_usd_per_hour": self.cost,
            "bound": proof.bound,
            "gap": proof.gap,
            "assignment": {name: dict(row) for name, row in self.assignment.items()},
            "solver": proof.solver,
            "elapsed_s": self.elapsed,
            "single_type": singles,
            "reasons": list(self.reasons),
            "certificate": proof.as_dict(),
        }


def allocate(problem: AllocationProblem, options: SolveOptions | None = None) -> AllocationResult:
    """Find and prove the cheapest mixture. Infeasible is a result, with reasons."""
    started = time.monotonic()
    result = solve_mixture(as_mixture(problem), options)
    singles = {offer.name: single_type(problem, offer) for offer in problem.offers}
    counts = {offer.name: 0 for offer in problem.offers} if result.plan else {}
    for replica in result.plan.replicas if result.plan else ():
        counts[replica.template] += replica.count
    return AllocationResult(
        status=result.status,
        counts=counts,
        cost=result.plan.cost if result.plan else None,
        assignment=result.plan.assignment if result.plan else {},
        certificate=result.certificate,
        single_type=singles,
        reasons=_reasons(result),
        elapsed=time.monotonic() - started,
    )


def as_mixture(problem: AllocationProblem) -> MixtureProblem:
    """Every machine type is an offer with one template of one machine."""
    templates = tuple(
        Template(id=o.name, model="", gpus={o.name: 1}, capacity=problem.capacity.get(o.name, {}))
        for o in problem.offers
    )
    offers = tuple(Offer(o.name, o.name, o.cost_usd_per_hour, o.available) for o in problem.offers)
    classes = tuple(RequestClass(c.name, "", c.rate) for c in problem.classes)
    return MixtureProblem(templates, offers, classes, Limits(utilisation=problem.headroom), slices=problem.slices)


def single_type(problem: AllocationProblem, offer: AllocationOffer) -> SingleType | None:
    """Machines of one type that carry everything: ceil(sum rate / capacity / headroom), in exact arithmetic."""
    busy = Fraction(0)
    row = problem.capacity.get(offer.name, {})
    for request in problem.classes:
        if request.rate == 0:
            continue
        capacity = row.get(request.name, 0.0)
        if capacity == 0:
            return None
        busy += exact(request.rate) / exact(capacity)
    count = replicas_for(busy / exact(problem.headroom))
    if offer.available is not None and count > offer.available:
        return None
    return SingleType(count, float(count * exact(offer.cost_usd_per_hour)))


def _reasons(result: MixtureResult) -> tuple[str, ...]:
    if result.status != "infeasible":
        return ()
    # Each of the two ways out is all of its changes together.
    raise_limits = " and ".join(r.message for r in result.relax)
    drop = " and ".join(r.message for r in result.shortfall)
    ways = ((f"raise a limit: {raise_limits}",) if raise_limits else ()) + (
        (f"or lower the demand: {drop}" if raise_limits else drop,) if drop else ()
    )
    return ways or ("the limits contradict each other",)
