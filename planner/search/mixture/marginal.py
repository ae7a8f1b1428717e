"""What one more GPU of each offer is worth: by exact re-solve, or at once from the duals of the LP relaxation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from planner.search.mixture.backends import SolverLimits, solve_linear
from planner.search.mixture.formulation import formulate, objective
from planner.search.mixture.plan import MixtureResult
from planner.search.mixture.problem import Goal, MixtureProblem
from planner.search.mixture.search import SolveOptions
from planner.search.mixture.solve import reduce_problem, solve_mixture
from planner.search.mixture.space import build_space


@dataclass(frozen=True, slots=True)
class MarginalValue:
    """Gain in the first goal from ``gpus`` more GPUs of an offer (positive is better).

    In the goal's unit: $/h or W saved, GPUs saved, or increase of the common multiple of the rates.
    ``proved`` is false where a re-solve stopped with a gap, and for duals.
    """

    offer: str
    gpus: int
    gain: float
    proved: bool


def marginal_values(
    problem: MixtureProblem,
    options: SolveOptions | None = None,
    solve: Callable[[MixtureProblem], MixtureResult] | None = None,
) -> tuple[MarginalValue, ...]:
    """Re-solve with one more GPU (one more node where they come in nodes) of each limited offer.

    Unlimited offers have no marginal value, and an infeasible problem has none. ``solve`` stands for callers that check
    a solution further before they take it. More GPUs can be left idle, so no value is below zero.
    """
    asked = solve or (lambda question: solve_mixture(question, options))
    single = replace(problem, goals=problem.goals[:1])
    base = asked(single)
    goal = single.goals[0]
    before = base.certificate.value
    if base.plan is None or before is None:
        return ()
    found = []
    for index, offer in enumerate(problem.offers):
        if offer.available is None:
            continue
        more = offer.node_gpus if offer.node_gpus > 1 and offer.available % offer.node_gpus == 0 else 1
        offers = list(problem.offers)
        offers[index] = replace(offer, available=offer.available + more)
        again = asked(replace(single, offers=tuple(offers)))
        after = again.certificate.value
        if again.plan is None or after is None:
            continue
        gain = max(0.0, after - before if goal is Goal.THROUGHPUT else before - after)
        proved = base.status == "optimal" and again.status == "optimal"
        found.append(MarginalValue(offer.id, more, _clean(gain, before), proved))
    return tuple(found)


def dual_values(problem: MixtureProblem) -> tuple[MarginalValue, ...]:
    """Duals of the inventory rows of the LP relaxation: the value of a small fraction of a GPU more."""
    reduced = reduce_problem(replace(problem, goals=problem.goals[:1])).problem
    form = formulate(build_space(reduced))
    # The relaxation must see scarcity in its rows only, or the duals would hide in the columns' bounds.
    for column in form.replicas:
        form.model.variables[column].upper = float("inf")
    form.model.minimise(objective(form, reduced.goals[0]))
    found = solve_linear(form.model, "glop", SolverLimits())
    if found.duals is None:
        return ()
    unit = form.rate_unit if reduced.goals[0] is Goal.THROUGHPUT else 1.0
    return tuple(
        MarginalValue(row.name, 1, max(0.0, -dual) * unit, False)
        for row, dual in zip(form.model.rows, found.duals, strict=True)
        if row.law == "inventory"
    )


def _clean(gain: float, scale: float) -> float:
    """Differences below the last digits of the values are zero."""
    if abs(gain) <= 1e-9 * max(abs(scale), 1e-300):
        return 0.0
    return float(Fraction(gain).limit_denominator(10**12))
