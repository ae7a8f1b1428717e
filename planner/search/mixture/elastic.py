"""Why there is no plan: the least change of the limits, or of the demand, that makes one possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from planner.search.mixture.backends import SolverLimits, solve_linear
from planner.search.mixture.formulation import Formulation, formulate
from planner.search.mixture.plan import Relaxation
from planner.search.mixture.problem import Goal, Limits, MixtureProblem, Offer, Role
from planner.search.mixture.space import Pool, Space, build_space

SECONDS: Final = 10.0
LIMIT_LAWS: Final = frozenset({"inventory", "budget", "power", "spot share", "region floor", "KV link"})
_UNITS: Final = {"inventory": "GPUs", "budget": "$/h", "power": "W", "demand": "of the demand"}


def explain_infeasible(problem: MixtureProblem) -> tuple[tuple[Relaxation, ...], tuple[Relaxation, ...]]:
    """Two ways out of an infeasible problem: limits to raise (all demand met), demand to drop (all limits kept).

    Each is the solution with the least sum of relative changes. Empty if that way leads nowhere.
    """
    problem = replace(problem, goals=(Goal.COST,))
    unserved = _without_capacity(problem)
    if unserved:
        return (), unserved
    # A region's floor is a share of all that was asked, so it has to give way together with the demand.
    return _least_change(problem, LIMIT_LAWS), _least_change(problem, frozenset({"demand", "region floor"}))


def _without_capacity(problem: MixtureProblem) -> tuple[Relaxation, ...]:
    """Classes that no template, or chain of templates, on any offer can carry, whatever the limits."""
    generous = replace(problem, offers=tuple(replace(o, available=None) for o in problem.offers), limits=Limits())
    space = build_space(generous)
    found = []
    for request in space.classes:
        able = [pool for pool in space.pools if pool.capacity(request) > 0]
        if not able:
            message = f"request class {request.id}: no offered GPU has a capacity above 0 for it"
            found.append(Relaxation("demand", request.id, 1.0, message))
        elif not any(_complete(zone, request.prefilled) for zone in _zones(able)):
            roles = ", ".join(sorted({pool.template.role.value for pool in able}))
            message = f"request class {request.id}: no complete chain of roles serves it in one region, only {roles}"
            found.append(Relaxation("demand", request.id, 1.0, message))
    return tuple(found)


def _zones(pools: Sequence[Pool]) -> list[dict[str, set[Role]]]:
    """Roles by fabric, region by region."""
    found: dict[str, dict[str, set[Role]]] = {}
    for pool in pools:
        found.setdefault(pool.region, {}).setdefault(pool.template.fabric, set()).add(pool.template.role)
    return list(found.values())


def _complete(fabrics: Mapping[str, set[Role]], prefilled: bool) -> bool:
    """Whether these roles can serve a request from its arrival to its end; attention and FFN share a fabric."""
    roles = set().union(*fabrics.values())
    blocks = any({Role.ATTENTION, Role.FFN} <= here for here in fabrics.values())
    decodes = Role.DECODE in roles or blocks
    return Role.AGGREGATED in roles or (decodes and (prefilled or Role.PREFILL in roles))


def _least_change(problem: MixtureProblem, laws: frozenset[str]) -> tuple[Relaxation, ...]:
    form = _elastic_form(problem, laws)
    slack = _add_slack(form, laws)
    form.model.minimise({column: weight for column, (_, _, weight) in slack.items()})
    found = solve_linear(form.model, "highs", SolverLimits(seconds=SECONDS, relative_gap=1e-6))
    if found.values is None:
        return ()
    changes = []
    for column, (law, name, weight) in slack.items():
        amount = found.values[column]
        if amount * weight > 1e-7:
            changes.append(_relaxation(problem, law, name, amount))
    return tuple(changes)


def _elastic_form(problem: MixtureProblem, laws: frozenset[str]) -> Formulation:
    """Columns must not hide a limit that is to be relaxed: no offer is left out and no count capped."""
    if "inventory" not in laws:
        return formulate(build_space(problem))
    open_offers = tuple(replace(o, available=None) for o in problem.offers)
    limits = replace(problem.limits, budget=None, power=None)
    form = formulate(build_space(replace(problem, offers=open_offers, limits=limits)))
    by_id = {o.id: o for o in problem.offers}
    offers = tuple(replace(o, available=by_id[o.id].available) for o in form.space.offers)
    form.space = Space(problem, form.space.classes, offers, form.space.pools, form.space.placements)
    from planner.search.mixture import constraints as law

    law.stay_within_inventory(form)
    law.stay_within_budget(form)
    law.stay_within_power(form)
    return form


def _add_slack(form: Formulation, laws: frozenset[str]) -> dict[int, tuple[str, str, float]]:
    """A column per relaxable row that absorbs its violation; its weight makes changes relative to the limit."""
    slack: dict[int, tuple[str, str, float]] = {}
    for row in list(form.model.rows):
        if row.law not in laws:
            continue
        column = form.model.variable(f"slack {row.law} {row.name}")
        limit = row.upper if row.upper < float("inf") else row.lower
        slack[column] = (row.law, row.name, 1.0 / max(abs(limit), 1.0))
        row.terms[column] = -1.0 if row.law in LIMIT_LAWS and row.law != "region floor" else 1.0
        if row.law == "demand":
            form.model.variables[column].upper = max(row.lower, 0.0)
            slack[column] = (row.law, row.name, 1.0 / max(row.lower, 1.0))
    return slack


def _relaxation(problem: MixtureProblem, law: str, name: str, amount: float) -> Relaxation:
    if law == "demand":
        share = min(1.0, amount / (problem.slices or 1))
        rate = next(c.rate for c in problem.classes if c.id == name)
        message = f"request class {name}: {share:.3%} of its {rate:g} requests/s cannot be served"
        return Relaxation(law, name, share, message)
    if law == "inventory":
        offer: Offer = next(o for o in problem.offers if o.id == name)
        amount = float(-(-round(amount * 1e6) // 10**6))
        there = f"{offer.available:,} GPU{'' if offer.available == 1 else 's'} available"
        message = f"offer {name}: {there}, {amount:,.0f} more needed"
        return Relaxation(law, name, amount, message)
    if law in ("budget", "power"):
        limit = problem.limits.budget if law == "budget" else problem.limits.power
        message = f"{law}: the limit of {limit:g} {_UNITS[law]} must rise by {amount:.6g} {_UNITS[law]}"
        return Relaxation(law, name, amount, message)
    if law == "region floor":
        share = amount / sum(c.rate for c in problem.classes)
        message = f"region floor {name}: the floor of {problem.limits.region_floor[name]:.4g} must fall by {share:.4g}"
        return Relaxation(law, name, amount, message)
    if law == "spot share":
        return Relaxation(law, name, amount, f"spot share: {amount:.4g} of the spot GPUs are beyond the limit")
    return Relaxation(law, name, amount, f"{law} {name}: must be relaxed by {amount:.6g}")
