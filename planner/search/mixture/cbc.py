"""CBC through PuLP: a second opinion from a solver that shares no code with the others."""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from pathlib import Path
from typing import Final

from planner.search.mixture.backends import LinearSolution, SolverLimits, silent_stdout
from planner.search.mixture.linear import LinearModel, row_scale
from planner.search.mixture.relaxation import solve_relaxed

_VALUE_BITS: Final = 14
_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)


def solve_with_cbc(model: LinearModel, limits: SolverLimits, hint: list[float] | None = None) -> LinearSolution:
    """Minimise ``model`` in a child process with one thread and a fixed seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PuLP 3 announces the names of PuLP 4
        return _solve(model, limits, hint)


def _solve(model: LinearModel, limits: SolverLimits, hint: list[float] | None) -> LinearSolution:
    import pulp

    problem, columns, scale = _translate(model, solve_relaxed(model, limits).bound)
    if hint is not None:
        for column, value, variable in zip(columns, hint, model.variables, strict=True):
            column.setInitialValue(value / variable.scale, check=False)
    options = [f"randomCbcSeed {limits.seed}"]
    with tempfile.TemporaryDirectory() as folder, silent_stdout():
        log = Path(folder) / "cbc.log"
        command = pulp.PULP_CBC_CMD(
            msg=False, threads=1, timeLimit=max(0.1, limits.seconds), gapRel=0.0, options=options,
            gapAbs=limits.absolute_gap * scale or None, maxNodes=limits.nodes, logPath=str(log),
            warmStart=hint is not None, keepFiles=False,
        )  # fmt: skip
        command.tmpDir = folder
        problem.solve(command)
        found = _BOUND.findall(log.read_text()) if log.exists() else []
    return _read(model, problem, columns, scale, [float(b) for b in found])


def _translate(model: LinearModel, near: float):  # type: ignore[no-untyped-def]
    """``near`` is about the value of the objective: CBC's absolute tolerances must be small beside it."""
    import pulp

    problem = pulp.LpProblem("mixture", pulp.LpMinimize)
    columns = [
        pulp.LpVariable(
            f"c{i}",
            v.lower / v.scale if v.lower > -math.inf else None,
            v.upper / v.scale if v.upper < math.inf else None,
            pulp.LpInteger if v.integer else pulp.LpContinuous,
        )
        for i, v in enumerate(model.variables)
    ]
    largest = max((abs(c) * model.variables[i].scale for i, c in model.objective.items()), default=0.0)
    scale = 2.0 ** -math.frexp(largest)[1] if largest > 0 else 1.0
    if near and math.isfinite(near):
        scale = max(scale, 2.0 ** (_VALUE_BITS - math.frexp(near)[1]))
    variables = model.variables
    problem += pulp.LpAffineExpression(
        [(columns[i], c * scale * variables[i].scale) for i, c in model.objective.items()]
    )
    for row in model.rows:
        factor = row_scale(row, variables)
        terms = pulp.LpAffineExpression([(columns[i], c * factor * variables[i].scale) for i, c in row.terms.items()])
        if row.lower == row.upper:
            problem += terms == row.lower * factor
            continue
        if row.lower > -math.inf:
            problem += terms >= row.lower * factor
        if row.upper < math.inf:
            problem += terms <= row.upper * factor
    return problem, columns, scale


def _read(model, problem, columns, scale, bounds) -> LinearSolution:  # type: ignore[no-untyped-def]
    import pulp

    status = {
        pulp.LpSolutionOptimal: "optimal",
        pulp.LpSolutionIntegerFeasible: "feasible",
        pulp.LpSolutionInfeasible: "infeasible",
        pulp.LpSolutionUnbounded: "unbounded",
    }.get(problem.sol_status, "unknown")
    if problem.status == pulp.LpStatusInfeasible:
        status = "infeasible"  # CBC's "Integer infeasible" is missing from the other table
    if status not in ("optimal", "feasible"):
        return LinearSolution(status, "pulp-cbc")
    values = [(c.varValue or 0.0) * v.scale for c, v in zip(columns, model.variables, strict=True)]
    bound = max(bounds, default=-math.inf) / scale
    if status == "optimal":
        # CBC prints no bound when the root or the gap closed it; its gap tolerance was zero.
        bound = max(bound, model.value(values))
    return LinearSolution(status, "pulp-cbc", values, bound)
