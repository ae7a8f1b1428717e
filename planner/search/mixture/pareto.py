"""The front of two goals by epsilon constraints: each point is proved optimal for its limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.errors import InputError
from planner.search.mixture.consistency import check_problem
from planner.search.mixture.plan import MixtureResult
from planner.search.mixture.problem import Goal, MixtureProblem
from planner.search.mixture.search import SolveOptions
from planner.search.mixture.solve import solve_mixture


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A plan and its values of the two goals."""

    first: float
    second: float
    result: MixtureResult


def pareto_front(
    problem: MixtureProblem, first: Goal, second: Goal, points: int = 10, options: SolveOptions | None = None
) -> tuple[FrontPoint, ...]:
    """Trade ``first`` for ``second``: from the best first goal to the best second, at most ``points`` plans.

    Between the ends the limit on ``second`` falls in equal steps. With throughput, give it as ``first``.
    """
    if first is second or second is Goal.THROUGHPUT or points < 2:
        raise InputError("a Pareto front needs two different goals (throughput first) and at least 2 points")
    options = options or SolveOptions()
    check_problem(problem)
    start = solve_mixture(replace(problem, goals=(first, second)), options)
    if start.plan is None:
        return ()
    front = [_point(start, first, second)]
    least = _least(problem, first, second, options)
    steps = points if first is Goal.THROUGHPUT else points - 1  # a fleet for nothing is no point of the front
    step = (front[0].second - least) / steps
    while step > 1e-9 * max(abs(front[0].second), 1e-300) and len(front) < points:
        cap = min(front[-1].second - 1e-6 * abs(front[0].second), front[0].second - step * len(front))
        cap = max(cap, least)
        found = solve_mixture(replace(problem, goals=(first, second)), options, {second: cap * (1 + 1e-12)})
        if found.plan is None:
            break
        point = _point(found, first, second)
        if point.second >= front[-1].second:
            break
        front.append(point)
        if point.second <= least * (1 + 1e-9):
            break
    return tuple(front)


def _least(problem: MixtureProblem, first: Goal, second: Goal, options: SolveOptions) -> float:
    """The smallest second goal; with throughput first, that of a fleet that serves nothing is zero."""
    if first is Goal.THROUGHPUT:
        return 0.0
    best = solve_mixture(replace(problem, goals=(second,)), options)
    return best.certificate.value or 0.0


def _point(result: MixtureResult, first: Goal, second: Goal) -> FrontPoint:
    values = (result.value(first), result.value(second))
    assert values[0] is not None and values[1] is not None
    return FrontPoint(values[0], values[1], result)
