"""Re-check of a plan outside any solver: every condition again, from the problem, in rational arithmetic.

Numbers are the decimals that the user wrote. Conditions hold to a relative 1e-9, which is where the
shares that a solver returns in floating point end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from planner.search.mixture.certificate import exact
from planner.search.mixture.constraints import AFTER_PREFILL, ENTRY, LATE_ENTRY
from planner.search.mixture.exact_plan import (
    SLACK,
    ExactPlan,
    busy_replicas,
    gpus_rented,
    gpus_working,
    nodes_taken,
    plan_value,
    replicas_for,
)
from planner.search.mixture.problem import Goal, Role
from planner.search.mixture.space import Space


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: ``used`` must not exceed ``limit``."""

    law: str
    name: str
    used: Fraction
    limit: Fraction

    @property
    def holds(self) -> bool:
        """Within the relative slack of the limit (or of what is used, where the limit is zero)."""
        return self.used <= self.limit + SLACK * max(abs(self.limit), abs(self.used) * (self.limit != 0))


def recheck(space: Space, plan: ExactPlan) -> list[Check]:
    """All conditions of the problem, evaluated on the plan."""
    return [
        *_demand(space, plan),
        *_balances(space, plan),
        *_capacity(space, plan),
        *_kv_links(space, plan),
        *_fabric_links(space, plan),
        *_inventory(space, plan),
        *_totals(space, plan),
        *_regions(space, plan),
    ]


def violations(checks: list[Check]) -> list[Check]:
    """The conditions that do not hold."""
    return [check for check in checks if not check.holds]


def _sum(
    space: Space, plan: ExactPlan, w: int, roles: object, region: str | None = None, fabric: str | None = None
) -> Fraction:
    total = Fraction(0)
    for p, pool in enumerate(space.pools):
        inside = region in (None, pool.region) and fabric in (None, pool.template.fabric)
        if inside and pool.template.role in roles:  # type: ignore[operator]
            total += plan.share.get((p, w), Fraction(0))
    return total


def _both(law: str, name: str, left: Fraction, right: Fraction) -> Iterator[Check]:
    yield Check(law, name, left, right)
    yield Check(law, name, right, left)


def _demand(space: Space, plan: ExactPlan) -> Iterator[Check]:
    for w, request in enumerate(space.classes):
        served = _sum(space, plan, w, LATE_ENTRY if request.prefilled else ENTRY)
        yield from _both("demand", request.id, served, plan.rate)
        if space.problem.slices is not None:
            whole = all((s * space.problem.slices).denominator == 1 for (_, q), s in plan.share.items() if q == w)
            yield Check("slices", request.id, Fraction(0 if whole else 1), Fraction(0))


def _balances(space: Space, plan: ExactPlan) -> Iterator[Check]:
    regions = sorted({p.region for p in space.pools})
    fabrics = sorted({p.template.fabric for p in space.pools})
    split = any(p.template.role is not Role.AGGREGATED for p in space.pools)
    for w, request in enumerate(space.classes if split else ()):
        for region in regions:
            if not request.prefilled:
                sent = _sum(space, plan, w, {Role.PREFILL}, region)
                taken = _sum(space, plan, w, AFTER_PREFILL, region)
                yield from _both("prefill-decode balance", request.id, sent, taken)
            for fabric in fabrics:
                left = _sum(space, plan, w, {Role.ATTENTION}, region, fabric)
                right = _sum(space, plan, w, {Role.FFN}, region, fabric)
                yield from _both("attention-FFN balance", request.id, left, right)


def _capacity(space: Space, plan: ExactPlan) -> Iterator[Check]:
    for p, pool in enumerate(space.pools):
        busy = busy_replicas(space, plan, p)
        if busy > 0:
            working = max(0, plan.of_pool(space, p) - space.problem.limits.spare_replicas)
            needed = replicas_for(busy / exact(pool.utilisation))
            yield Check("capacity", pool.id, Fraction(needed), Fraction(working))


def _kv_links(space: Space, plan: ExactPlan) -> Iterator[Check]:
    for p, pool in enumerate(space.pools):
        template = pool.template
        sides = ((template.kv_egress, {Role.PREFILL}), (template.kv_ingress, AFTER_PREFILL))
        for bandwidth, roles in sides:
            if bandwidth is None or template.role not in roles:
                continue
            traffic = sum(
                (
                    s * exact(space.classes[w].rate) * exact(space.classes[w].kv_bytes)
                    for (q, w), s in plan.share.items()
                    if q == p and not space.classes[w].prefilled
                ),
                Fraction(0),
            )
            yield Check("KV link", pool.id, traffic, exact(bandwidth) * plan.of_pool(space, p))


def _fabric_links(space: Space, plan: ExactPlan) -> Iterator[Check]:
    """KV that must leave its fabric, against all links out of it; and what must arrive, against all links in.

    Cuts around single fabrics: exact for two fabrics, necessary for more (the solver's flow rows are exact).
    """
    links = space.problem.limits.kv_links
    if links is None:
        return
    for fabric in sorted({p.template.fabric for p in space.pools}):
        out, into = Fraction(0), Fraction(0)
        for w, request in enumerate(space.classes):
            traffic = exact(request.rate) * exact(request.kv_bytes)
            for region in sorted({p.region for p in space.pools}):
                if request.prefilled:
                    continue
                sent = _sum(space, plan, w, {Role.PREFILL}, region, fabric)
                taken = _sum(space, plan, w, AFTER_PREFILL, region, fabric)
                out += max(Fraction(0), sent - taken) * traffic
                into += max(Fraction(0), taken - sent) * traffic
        outward = sum((exact(k.bandwidth) for k in links if k.source == fabric != k.target), Fraction(0))
        inward = sum((exact(k.bandwidth) for k in links if k.target == fabric != k.source), Fraction(0))
        yield Check("KV link out of fabric", fabric, out, outward)
        yield Check("KV link into fabric", fabric, into, inward)


def _inventory(space: Space, plan: ExactPlan) -> Iterator[Check]:
    for index, offer in enumerate(space.offers):
        rented = gpus_rented(space, plan, index)
        if offer.available is not None:
            yield Check("inventory", offer.id, Fraction(rented), Fraction(offer.available))
        if index in plan.nodes:
            yield Check(
                "node packing",
                offer.id,
                Fraction(nodes_taken(space, plan, index)),
                Fraction(plan.nodes[index]),
            )


def _totals(space: Space, plan: ExactPlan) -> Iterator[Check]:
    limits = space.problem.limits
    if limits.budget is not None:
        yield Check("budget", "budget", plan_value(space, plan, Goal.COST), exact(limits.budget))
    if limits.power is not None:
        yield Check("power", "power", plan_value(space, plan, Goal.POWER), exact(limits.power))
    if limits.spot_share is not None:
        spot, working = gpus_working(space, plan, spot_only=True), gpus_working(space, plan, spot_only=False)
        yield Check("spot share", "spot share", Fraction(spot), exact(limits.spot_share) * working)


def _regions(space: Space, plan: ExactPlan) -> Iterator[Check]:
    total = sum((exact(c.rate) for c in space.classes), Fraction(0)) * plan.rate
    for region, floor in space.problem.limits.region_floor.items():
        served = Fraction(0)
        for w, request in enumerate(space.classes):
            entry = LATE_ENTRY if request.prefilled else ENTRY
            served += _sum(space, plan, w, entry, region) * exact(request.rate)
        yield Check("region floor", region, exact(floor) * total, served)
