"""Checks of a mixture problem before any solve: each failure names what is wrong and what to do."""

from __future__ import annotations

import math

from planner.errors import InputError, UnknownNameError
from planner.search.mixture.problem import Goal, MixtureProblem


def check_problem(problem: MixtureProblem) -> None:
    """Raise InputError for the first thing that cannot be meant."""
    check_unique_names(problem)
    check_templates(problem)
    check_offers(problem)
    check_classes(problem)
    check_limits(problem)
    check_goals(problem)


def check_unique_names(problem: MixtureProblem) -> None:
    """Names identify templates, offers and classes in the plan, so each may occur once."""
    kinds = (("template", problem.templates), ("offer", problem.offers), ("request class", problem.classes))
    for kind, items in kinds:
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise InputError(f"{kind} {item.id!r} is given twice", hint="give every one its own name")
            seen.add(item.id)
    if not problem.classes:
        raise InputError("no request class is given", hint="give at least one class with its rate")


def check_templates(problem: MixtureProblem) -> None:
    """Capacities are finite and not negative, GPU counts positive, class names known."""
    classes = {c.id for c in problem.classes}
    for template in problem.templates:
        where = f"template {template.id!r}"
        if not template.gpus or any(n < 1 for n in template.gpus.values()):
            raise InputError(f"{where}: every GPU count must be at least 1")
        for name, rate in template.capacity.items():
            if name not in classes:
                raise UnknownNameError(f"request class in the capacity of {template.id}", name, classes)
            _not_negative(rate, f"{where}: capacity for {name!r}")
        _not_negative(template.power, f"{where}: power")
        _optional_not_negative(template.kv_egress, f"{where}: kv_egress")
        _optional_not_negative(template.kv_ingress, f"{where}: kv_ingress")
        if template.utilisation is not None:
            _share(template.utilisation, f"{where}: utilisation", above_zero=True)


def check_offers(problem: MixtureProblem) -> None:
    """Prices are finite and not negative; availability and node sizes are counts."""
    for offer in problem.offers:
        where = f"offer {offer.id!r}"
        _not_negative(offer.price, f"{where}: price")
        if offer.available is not None and offer.available < 0:
            raise InputError(f"{where}: available must be at least 0 (or absent for no limit)")
        if offer.node_gpus < 1:
            raise InputError(f"{where}: a node has at least one GPU")


def check_classes(problem: MixtureProblem) -> None:
    """Rates and KV sizes are finite and not negative."""
    for request in problem.classes:
        _not_negative(request.rate, f"request class {request.id!r}: rate")
        _not_negative(request.kv_bytes, f"request class {request.id!r}: kv_bytes")


def check_limits(problem: MixtureProblem) -> None:
    """Shares lie in [0, 1]; region floors name known regions and do not exceed the whole."""
    limits = problem.limits
    _share(limits.utilisation, "utilisation headroom", above_zero=True)
    if limits.spare_replicas < 0:
        raise InputError("spare replicas must be at least 0")
    _optional_not_negative(limits.budget, "budget")
    _optional_not_negative(limits.power, "power limit")
    if limits.spot_share is not None:
        _share(limits.spot_share, "spot share")
    regions = {o.region for o in problem.offers}
    for region, floor in limits.region_floor.items():
        if region not in regions:
            raise UnknownNameError("region", region, regions)
        _share(floor, f"floor of region {region!r}")
    if sum(limits.region_floor.values()) > 1 + 1e-12:
        raise InputError("the floors of the regions add up to more than 1", hint="lower one of them")
    for link in limits.kv_links or ():
        _not_negative(link.bandwidth, f"KV link {link.source!r} to {link.target!r}")


def check_goals(problem: MixtureProblem) -> None:
    """At least one goal, none twice; throughput comes first and divides classes freely."""
    goals = problem.goals
    if not goals or len(set(goals)) != len(goals):
        raise InputError("give at least one goal, and each at most once")
    if Goal.THROUGHPUT in goals[1:]:
        raise InputError("throughput can only be the first goal", hint="or use the Pareto front of two goals")
    if problem.slices is not None and problem.slices < 1:
        raise InputError("slices must be at least 1")
    if goals[0] is not Goal.THROUGHPUT:
        return
    if problem.slices is not None:
        raise InputError("throughput needs freely divisible classes", hint="leave the slices out")
    if all(c.rate == 0 for c in problem.classes):
        raise InputError("throughput needs a request class with a rate above 0: the rates are the mix")


def _not_negative(value: float, what: str) -> None:
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{what} must be a finite number of at least 0")


def _optional_not_negative(value: float | None, what: str) -> None:
    if value is not None:
        _not_negative(value, what)


def _share(value: float, what: str, *, above_zero: bool = False) -> None:
    if not (0.0 <= value <= 1.0) or (above_zero and value == 0.0):
        raise InputError(f"{what} must lie in {'(0, 1]' if above_zero else '[0, 1]'}")
