"""HiGHS, SCIP and CP-SAT through OR-Tools' MathOpt."""

from __future__ import annotations

import datetime
import math
from typing import Any, Final

from planner.search.mixture.backends import LinearSolution, SolverLimits, in_thread
from planner.search.mixture.linear import LinearModel, row_scale

_ENGINES: Final = {"highs": "HIGHS", "scip": "GSCIP", "cp-sat": "CP_SAT"}


def solve_with_mathopt(
    model: LinearModel, solver: str, limits: SolverLimits, hint: list[float] | None = None
) -> LinearSolution:
    """Minimise ``model``. Rows are scaled by powers of two, columns by their own scale."""
    from ortools.math_opt.python import mathopt

    built = MathOptModel(model)
    engine = getattr(mathopt.SolverType, _ENGINES[solver])
    extras = mathopt.ModelSolveParameters()
    if hint is not None:
        pairs = zip(built.columns, hint, model.variables, strict=True)
        values = {column: value / variable.scale for column, value, variable in pairs}
        extras.solution_hints.append(mathopt.SolutionHint(variable_values=values))

    def work() -> LinearSolution:
        options = parameters(solver, limits, built.scale)
        try:
            result = mathopt.solve(built.model, engine, params=options, model_params=extras)
        except (AttributeError, RuntimeError, ValueError):
            # A solver may refuse a model (CP-SAT: numbers out of its integer range), and MathOpt then fails to say so.
            return LinearSolution("unknown", solver)
        return built.read(result, solver)

    return in_thread(work, solver, limits.seconds)


def parameters(solver: str, limits: SolverLimits, objective_scale: float = 1.0) -> Any:
    """Solver options: one worker, fixed seed, deterministic limits where there are any."""
    from ortools.math_opt.python import mathopt

    options = mathopt.SolveParameters(time_limit=datetime.timedelta(seconds=max(0.01, limits.seconds)))
    options.random_seed = limits.seed
    options.relative_gap_tolerance = limits.relative_gap
    options.absolute_gap_tolerance = limits.absolute_gap * objective_scale
    if limits.nodes is not None and solver in ("highs", "scip"):
        options.node_limit = limits.nodes
    if solver == "highs":
        # Tolerances stay at their defaults: at 1e-9 HiGHS cut off the optimum and "proved" a worse one.
        options.highs.string_options["parallel"] = "off"  # MathOpt's own thread option is broken for HiGHS
    elif solver == "scip":
        options.threads = 1
    elif solver == "cp-sat":
        options.threads = 1
        options.cp_sat.mip_wanted_precision = 1e-8
        options.cp_sat.catch_sigint_signal = False  # Python hears Ctrl-C; two handlers end in an abort
        if limits.work is not None:
            options.cp_sat.max_deterministic_time = limits.work
    return options


class MathOptModel:
    """A LinearModel as MathOpt sees it, and the way back."""

    def __init__(self, source: LinearModel) -> None:
        from ortools.math_opt.python import mathopt

        self.source = source
        self.model = mathopt.Model()
        self.columns = [
            self.model.add_variable(lb=v.lower / v.scale, ub=v.upper / v.scale, is_integer=v.integer)
            for v in source.variables
        ]
        for row in source.rows:
            factor = row_scale(row, source.variables)
            added = self.model.add_linear_constraint(lb=row.lower * factor, ub=row.upper * factor)
            for index, coefficient in row.terms.items():
                added.set_coefficient(self.columns[index], coefficient * factor * source.variables[index].scale)
        self.scale = 1.0
        self.set_objective(source.objective)

    def set_objective(self, terms: dict[int, float]) -> None:
        """Minimise ``terms``, scaled so that its largest coefficient is near one."""
        variables = self.source.variables
        largest = max((abs(c) * variables[i].scale for i, c in terms.items()), default=0.0)
        self.scale = 2.0 ** -math.frexp(largest)[1] if largest > 0 else 1.0
        self.model.objective.clear()
        self.model.objective.is_maximize = False
        for index, coefficient in terms.items():
            self.model.objective.set_linear_coefficient(
                self.columns[index], coefficient * variables[index].scale * self.scale
            )

    def read(self, result: Any, solver: str) -> LinearSolution:
        """Translate a MathOpt result into true units."""
        from ortools.math_opt.python import mathopt

        reason = mathopt.TerminationReason
        status = {
            reason.OPTIMAL: "optimal",
            reason.FEASIBLE: "feasible",
            reason.INFEASIBLE: "infeasible",
            reason.UNBOUNDED: "unbounded",
            reason.INFEASIBLE_OR_UNBOUNDED: "infeasible",
        }.get(result.termination.reason, "unknown")
        bound = result.termination.objective_bounds.dual_bound / self.scale
        values = None
        if result.has_primal_feasible_solution():
            raw = result.variable_values(self.columns)
            values = [value * v.scale for value, v in zip(raw, self.source.variables, strict=True)]
        return LinearSolution(status, solver, values, bound)
