"""A sparse linear model in plain Python: the one thing that every solver backend is given.

Rows and columns keep their names and the law they come from, so that an infeasible model can name
the limits that are in the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

INFINITY = math.inf


@dataclass(slots=True)
class Variable:
    """A column. ``scale``: the solver sees value/scale, which keeps huge counts in a sane range."""

    name: str
    lower: float = 0.0
    upper: float = INFINITY
    integer: bool = False
    scale: float = 1.0


@dataclass(slots=True)
class Row:
    """lower <= sum(coefficient * variable) <= upper; ``law`` is the constraint family, ``name`` what it limits."""

    law: str
    name: str
    terms: dict[int, float]
    lower: float = -INFINITY
    upper: float = INFINITY


@dataclass(slots=True)
class LinearModel:
    """Variables, rows and a linear objective that is minimised."""

    variables: list[Variable] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    objective: dict[int, float] = field(default_factory=dict)

    def variable(
        self,
        name: str,
        *,
        lower: float = 0.0,
        upper: float = INFINITY,
        integer: bool = False,
        scale: float = 1.0,
    ) -> int:
        """Add a column and return its index."""
        self.variables.append(Variable(name, lower, upper, integer, scale))
        return len(self.variables) - 1

    def row(
        self,
        law: str,
        name: str,
        terms: Iterable[tuple[int, float]],
        *,
        lower: float = -INFINITY,
        upper: float = INFINITY,
    ) -> None:
        """Add a row; repeated variables add up and zero coefficients vanish."""
        summed: dict[int, float] = {}
        for index, coefficient in terms:
            summed[index] = summed.get(index, 0.0) + coefficient
        self.rows.append(Row(law, name, {i: c for i, c in summed.items() if c != 0.0}, lower, upper))

    def minimise(self, terms: Mapping[int, float]) -> None:
        """Set the objective."""
        self.objective = {i: c for i, c in terms.items() if c != 0.0}

    def value(self, values: list[float]) -> float:
        """Objective at ``values`` (true units)."""
        return math.fsum(c * values[i] for i, c in self.objective.items())

    def integers(self) -> list[int]:
        """Indices of the integer columns."""
        return [i for i, v in enumerate(self.variables) if v.integer]

    def copy(self) -> LinearModel:
        """A copy whose bounds, rows and objective can be changed freely."""
        variables = [Variable(v.name, v.lower, v.upper, v.integer, v.scale) for v in self.variables]
        rows = [Row(r.law, r.name, dict(r.terms), r.lower, r.upper) for r in self.rows]
        return LinearModel(variables, rows, dict(self.objective))


def row_scale(row: Row, variables: list[Variable]) -> float:
    """Power of two that brings the largest coefficient of a row, as the solver sees it, near one.

    Rows in bytes (1e9 and more) made solvers return false optima; a power of two loses no digit.
    """
    largest = max((abs(c) * variables[i].scale for i, c in row.terms.items()), default=0.0)
    return 1.0 if largest == 0.0 else 2.0 ** -math.frexp(largest)[1]
