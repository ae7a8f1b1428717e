"""Good plans fast: a guided dive on the LP relaxation, and replicas taken away one by one."""

from __future__ import annotations

import math
import time

from planner.search.mixture.backends import SolverLimits
from planner.search.mixture.linear import LinearModel
from planner.search.mixture.relaxation import Relaxation

_WHOLE = 1e-7


class Diver:
    """The LP relaxation with bounds that move, until a deadline."""

    def __init__(self, source: LinearModel, limits: SolverLimits) -> None:
        self.source = source
        self.relaxed = Relaxation(source)
        self.deadline = time.monotonic() + limits.seconds
        self.bound = self.relaxed.bound

    def relax(self) -> list[float] | None:
        """Values of the relaxation under the present bounds, or None."""
        rest = self.deadline - time.monotonic()
        return self.relaxed.values() if rest > 0 and self.relaxed.solve(rest) == "optimal" else None


def dive(source: LinearModel, limits: SolverLimits) -> list[float] | None:
    """Round the column nearest to a whole number, re-solve, repeat; turn the other way once where that fails."""
    diver = Diver(source, limits)
    values = diver.relax()
    bounds = {i: (source.variables[i].lower, source.variables[i].upper) for i in source.integers()}
    while values is not None:
        open_columns = [i for i in bounds if abs(values[i] - round(values[i])) > _WHOLE]
        if not open_columns:
            return _shrink(diver, bounds, values)
        values = _step(diver, bounds, values, open_columns)
    return None


def _step(
    diver: Diver, bounds: dict[int, tuple[float, float]], values: list[float], open_columns: list[int]
) -> list[float] | None:
    """Fix the most decided fifth of the open columns; if that fails, only the first, either way."""
    ordered = sorted(open_columns, key=lambda i: (abs(values[i] - round(values[i])), i))
    for group in (ordered[: max(1, len(ordered) // 5)], ordered[:1]):
        before = {i: bounds[i] for i in group}
        for i in group:
            _round(diver, bounds, i, values[i], up=values[i] > math.floor(values[i]) + 0.5)
        moved = diver.relax()
        if moved is not None:
            return moved
        for i, old in before.items():
            bounds[i] = old
            diver.bound(i, *old)
    first = ordered[0]
    _round(diver, bounds, first, values[first], up=values[first] <= math.floor(values[first]) + 0.5)
    return diver.relax()


def _round(diver: Diver, bounds: dict[int, tuple[float, float]], index: int, value: float, *, up: bool) -> None:
    lower, upper = bounds[index]
    bounds[index] = (float(math.ceil(value)), upper) if up else (lower, float(math.floor(value)))
    diver.bound(index, *bounds[index])


def _shrink(diver: Diver, bounds: dict[int, tuple[float, float]], values: list[float]) -> list[float]:
    """Fix the whole-numbered columns and take single units away while the rest stays feasible, dearest first."""
    source, best = diver.source, values
    cost = source.objective
    for i in bounds:
        level = float(round(best[i]))
        diver.bound(i, source.variables[i].lower, level)
        bounds[i] = (source.variables[i].lower, level)
    moved = diver.relax()
    if moved is None or source.value(moved) > source.value(best) + 1e-12:
        moved = best
    for i in sorted(bounds, key=lambda j: (-cost.get(j, 0.0), j)):
        if cost.get(i, 0.0) <= 0 or best[i] < 0.5:
            continue
        diver.bound(i, source.variables[i].lower, bounds[i][1] - 1.0)
        lower_plan = _whole_relaxation(diver, bounds, i)
        if lower_plan is not None and source.value(lower_plan) < source.value(best) - 1e-12:
            best = lower_plan
            for j in bounds:
                bounds[j] = (bounds[j][0], float(round(best[j])))
                diver.bound(j, *bounds[j])
        else:
            diver.bound(i, *bounds[i])
    return best


def _whole_relaxation(diver: Diver, bounds: dict[int, tuple[float, float]], changed: int) -> list[float] | None:
    """The relaxation with every integer column rounded up to what it was allowed: feasible for covering rows."""
    values = diver.relax()
    if values is None:
        return None
    whole = list(values)
    for i, (_, upper) in bounds.items():
        limit = upper - 1.0 if i == changed else upper
        whole[i] = min(limit, float(math.ceil(values[i] - _WHOLE)))
    if any(abs(whole[i] - values[i]) > _WHOLE for i in bounds):
        for i in bounds:
            diver.bound(i, whole[i], whole[i])
        checked = diver.relax()
        for i, (lower, upper) in bounds.items():
            diver.bound(i, lower, upper - 1.0 if i == changed else upper)
        return checked
    return values
