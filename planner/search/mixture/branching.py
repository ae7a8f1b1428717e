"""Branch and bound over few whole numbers.

With a handful of integer columns (a count per GPU type) and thousands of shares the tree is small and every node is a
few dual simplex steps: 300 classes on 8 types take 0.1 to 0.3 s here, 0.6 to 0.9 s in HiGHS, whose presolve, cuts and
start-up cost more than that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from planner.search.mixture.backends import SolverLimits
from planner.search.mixture.certificate import PROVED_GAP, lift_bound
from planner.search.mixture.linear import LinearModel
from planner.search.mixture.relaxation import Relaxation

MOST_INTEGERS: Final = 24
MOST_NODES: Final = 1500
WORK: Final = 500_000  # nodes times columns, about one second
FEWEST_NODES: Final = 100  # a model that allows fewer within the work is left to other solvers
_WHOLE: Final = 1e-7

Bounds = dict[int, tuple[float, float]]


@dataclass(slots=True)
class Branched:
    """``bound`` holds for all whole-numbered solutions; ``values`` is the best one met, with its objective."""

    bound: float = -math.inf
    value: float = math.inf
    values: list[float] | None = None
    nodes: int = 0
    infeasible: bool = False


def nodes_allowed(model: LinearModel) -> int:
    """Nodes that branching may take on a model; 0 where other solvers do better."""
    integers = len(model.integers())
    nodes = min(MOST_NODES, WORK // max(1, len(model.variables)))
    return nodes if 0 < integers <= MOST_INTEGERS and nodes >= FEWEST_NODES else 0


def branch(
    source: LinearModel, limits: SolverLimits, step: Fraction, most_nodes: int, best: float = math.inf
) -> Branched:
    """Best-bound search on ``source``, whose objective is a multiple of ``step`` (0: any number).

    ``best`` is the value of a solution that is known already. Stops after ``most_nodes`` or at the time limit with
    the bound that holds until then.
    """
    return _Tree(source, limits, step, best).run(most_nodes)


@dataclass(order=True, slots=True)
class _Node:
    bound: float
    order: int
    counts: dict[int, float] = field(compare=False)
    bounds: Bounds = field(compare=False)


class _Tree:
    def __init__(self, source: LinearModel, limits: SolverLimits, step: Fraction, best: float) -> None:
        self.source, self.step, self.limits = source, step, limits
        self.relaxed = Relaxation(source)
        self.integers = source.integers()
        self.deadline = time.monotonic() + limits.seconds
        self.found = Branched(value=best)
        self.open: list[_Node] = []
        self.order = itertools.count()
        self.present: Bounds = {}
        # A rounded-up solution is a solution where nothing but whole numbers costs anything.
        self.roundable = all(source.variables[i].integer for i in source.objective)

    def run(self, most_nodes: int) -> Branched:
        variables = self.source.variables
        whole = self._visit({i: (variables[i].lower, variables[i].upper) for i in self.integers})
        while whole and self.open and self.found.nodes < most_nodes and time.monotonic() < self.deadline:
            if self._closed(self.open[0].bound):
                break
            node = heapq.heappop(self.open)
            split = self._widest(node)
            count, (lower, upper) = node.counts[split], node.bounds[split]
            down = self._visit({**node.bounds, split: (lower, float(math.floor(count)))})
            up = self._visit({**node.bounds, split: (float(math.ceil(count)), upper)})
            whole = down and up
            if not whole:
                heapq.heappush(self.open, node)
        found = self.found
        if whole or self.open:
            found.bound = min((node.bound for node in self.open), default=found.value)
        found.infeasible = whole and not self.open and math.isinf(found.value)
        return found

    def _visit(self, bounds: Bounds) -> bool:
        """Solve a node and keep it open if it may hold something better; false if its relaxation stays unknown."""
        for i, pair in bounds.items():
            if self.present.get(i) != pair:
                self.relaxed.bound(i, *pair)
        self.present = bounds
        self.found.nodes += 1
        status = self.relaxed.solve(max(0.05, self.deadline - time.monotonic()))
        if status == "infeasible":
            return True
        if status != "optimal":
            return False
        counts = self.relaxed.some(self.integers)
        value = self.relaxed.value
        bound = lift_bound(value, self.step)
        if self._closed(bound):
            return True
        if all(abs(n - round(n)) <= _WHOLE for n in counts.values()):
            self.found.value, self.found.values = value, self.relaxed.values()
            return True
        heapq.heappush(self.open, _Node(bound, next(self.order), counts, bounds))
        if self.roundable:
            self._round_up(counts)
        return True

    def _round_up(self, counts: dict[int, float]) -> None:
        """More replicas with the same shares break no demand or capacity row; inventory is seen by the re-check."""
        rounded = {i: float(math.ceil(n - _WHOLE)) for i, n in counts.items()}
        value = math.fsum(c * rounded[i] for i, c in self.source.objective.items())
        if self._closed(value):
            return
        values = self.relaxed.values()
        for i, n in rounded.items():
            values[i] = n
        if self._feasible(values):
            self.found.value, self.found.values = value, values

    def _feasible(self, values: list[float]) -> bool:
        """Whether rounded counts keep all rows and bounds, to a solver's tolerance."""
        if any(values[i] > self.source.variables[i].upper for i in self.integers):
            return False
        for row in self.source.rows:
            used = math.fsum(c * values[i] for i, c in row.terms.items())
            size = max((abs(c * values[i]) for i, c in row.terms.items()), default=1.0)
            if not row.lower - 1e-7 * size <= used <= row.upper + 1e-7 * size:
                return False
        return True

    def _closed(self, bound: float) -> bool:
        """Whether nothing below ``bound`` can be better than what is known."""
        best = self.found.value
        if math.isinf(best):
            return False
        allowed = max(PROVED_GAP, self.limits.relative_gap) * abs(best) + self.limits.absolute_gap
        return bound >= best - allowed

    def _widest(self, node: _Node) -> int:
        """The fractional count whose rounding costs most."""
        cost = self.source.objective

        def weight(i: int) -> tuple[float, float, int]:
            part = node.counts[i] % 1.0
            away = min(part, 1.0 - part)
            return (away * abs(cost.get(i, 0.0)) if away > _WHOLE else 0.0, away, -i)

        return max(self.integers, key=weight)
