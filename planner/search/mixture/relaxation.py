"""The LP relaxation of a model, kept inside GLOP: bounds move and it is solved again from where it stood.

GLOP is reached through pywraplp, which takes and returns plain numbers: MathOpt's Python objects cost ten to a hundred
times what GLOP itself needs on the models at hand (3 of 90 ms with 2,400 columns).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from planner.search.mixture.backends import LinearSolution, SolverLimits, in_thread, silent_stdout
from planner.search.mixture.linear import LinearModel, row_scale
from planner.units import Seconds


class Relaxation:
    """``source`` without its integrality. Rows are scaled by powers of two, columns by their own scale."""

    def __init__(self, source: LinearModel) -> None:
        from ortools.linear_solver import pywraplp

        self.source = source
        self.solver = pywraplp.Solver.CreateSolver("GLOP")
        self._states = {
            pywraplp.Solver.OPTIMAL: "optimal",
            pywraplp.Solver.INFEASIBLE: "infeasible",
            pywraplp.Solver.UNBOUNDED: "unbounded",
        }
        self._warm, self._cold = _parameters(warm=True), _parameters(warm=False)
        variables = source.variables
        self.columns = [self.solver.NumVar(v.lower / v.scale, v.upper / v.scale, "") for v in variables]
        self.rows, self.row_scales = [], []
        for row in source.rows:
            factor = row_scale(row, variables)
            added = self.solver.Constraint(row.lower * factor, row.upper * factor)
            for index, coefficient in row.terms.items():
                added.SetCoefficient(self.columns[index], coefficient * factor * variables[index].scale)
            self.rows.append(added)
            self.row_scales.append(factor)
        self._set_objective(source.objective)

    def _set_objective(self, terms: Mapping[int, float]) -> None:
        variables = self.source.variables
        largest = max((abs(c) * variables[i].scale for i, c in terms.items()), default=0.0)
        self.scale = 2.0 ** -math.frexp(largest)[1] if largest > 0 else 1.0
        self._objective: Any = self.solver.Objective()
        self._objective.SetMinimization()
        for index, coefficient in terms.items():
            self._objective.SetCoefficient(self.columns[index], coefficient * variables[index].scale * self.scale)

    def bound(self, index: int, lower: float, upper: float) -> None:
        """Set the bounds of a column, in true units."""
        scale = self.source.variables[index].scale
        self.columns[index].SetBounds(lower / scale, upper / scale)

    def solve(self, seconds: Seconds) -> str:
        """Solve under the present bounds; where the warm start ends in numerical trouble, once more from scratch."""
        self.solver.SetTimeLimit(max(1, round(seconds * 1000)))
        with silent_stdout():
            status = self._states.get(self.solver.Solve(self._warm), "unknown")
            if status != "optimal":
                status = self._states.get(self.solver.Solve(self._cold), "unknown")
        return status

    @property
    def value(self) -> float:
        """Objective of the last solution, in its own unit."""
        return float(self._objective.Value()) / self.scale

    def values(self) -> list[float]:
        """Columns of the last solution, in true units."""
        return [x.solution_value() * v.scale for x, v in zip(self.columns, self.source.variables, strict=True)]

    def some(self, indices: Iterable[int]) -> dict[int, float]:
        """Some columns of the last solution, in true units."""
        variables = self.source.variables
        return {i: self.columns[i].solution_value() * variables[i].scale for i in indices}

    def reduced_costs(self) -> list[float]:
        """Reduced costs by column of the last solution, in units of the objective per unit of the column."""
        variables = self.source.variables
        return [x.reduced_cost() / self.scale / v.scale for x, v in zip(self.columns, variables, strict=True)]

    def duals(self) -> list[float]:
        """Duals by row of the last solution, in units of the objective per unit of the row."""
        return [r.dual_value() * f / self.scale for r, f in zip(self.rows, self.row_scales, strict=True)]


def solve_relaxed(model: LinearModel, limits: SolverLimits) -> LinearSolution:
    """Minimise ``model`` without its integrality."""
    relaxed = Relaxation(model)

    def work() -> LinearSolution:
        status = relaxed.solve(limits.seconds)
        if status != "optimal":
            return LinearSolution(status, "glop")
        return LinearSolution(status, "glop", relaxed.values(), relaxed.value, relaxed.duals())

    return in_thread(work, "glop", limits.seconds)


def _parameters(*, warm: bool) -> Any:
    from ortools.linear_solver import pywraplp

    options = pywraplp.MPSolverParameters()
    options.SetIntegerParam(options.PRESOLVE, options.PRESOLVE_OFF if warm else options.PRESOLVE_ON)
    options.SetIntegerParam(options.INCREMENTALITY, options.INCREMENTALITY_ON if warm else options.INCREMENTALITY_OFF)
    options.SetIntegerParam(options.LP_ALGORITHM, options.DUAL)
    return options
