"""One goal to proof: LP bound, dive, then exact solvers in turn until the gap closes or time runs out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from planner.errors import InputError, PlannerError
from planner.search.mixture.backends import SOLVERS, SolverLimits, solve_linear
from planner.search.mixture.branching import branch, nodes_allowed
from planner.search.mixture.certificate import (
    BOUND_ERROR,
    PROVED_GAP,
    PROVED_GAP_CONTINUOUS,
    lift_bound,
    relative_gap,
    value_step,
)
from planner.search.mixture.exact_plan import ExactPlan, draw_plan, plan_value
from planner.search.mixture.formulation import Formulation
from planner.search.mixture.incumbent import dive
from planner.search.mixture.linear import LinearModel
from planner.search.mixture.problem import Goal
from planner.search.mixture.recheck import Check, recheck, violations
from planner.search.mixture.restricted import POOLS, from_few_pools
from planner.search.mixture.space import Space
from planner.units import Seconds

WRONG = 1e-6  # relative; more than any rounding explains
TIGHTEN = 1e-7  # capacity rows shrink by this where a solver's tolerance broke the re-check
UNPROVEN = frozenset({"cp-sat"})  # rounds coefficients: plans are re-checked, but its bounds have been wrong
FIRST_SHARE = 0.85  # of the time left, to the first solver of a chain
DIVE_SHARE = 0.25  # of the time limit


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """Who solves, and for how long.

    Attributes
    ----------
    solver : auto, highs, scip, cp-sat or pulp-cbc.
    seconds : wall time for the whole search; ``nodes`` and ``work`` are the deterministic limits per solver.
    gap : relative gap at which to stop (0: prove it).
    """

    solver: str = "auto"
    seconds: Seconds = 60.0
    nodes: int | None = None
    work: float | None = None
    seed: int = 1
    gap: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown solvers and limits that are no limits."""
        if self.solver not in SOLVERS:
            raise InputError(f"unknown solver {self.solver!r}", hint=f"one of {', '.join(SOLVERS)}")
        if not self.seconds > 0 or not 0 <= self.gap < 1:
            raise InputError("the time limit must be above 0 and the gap in [0, 1)")


@dataclass(slots=True)
class Outcome:
    """Where a search stands. ``value`` and ``bound`` are of the minimised objective."""

    status: str = "unknown"
    plan: ExactPlan | None = None
    values: list[float] | None = None
    value: Fraction | None = None
    bound: float = -math.inf
    solvers: list[str] = field(default_factory=list)
    stopped_by: str | None = None
    checks: list[Check] = field(default_factory=list)
    proved: float = PROVED_GAP

    @property
    def gap(self) -> float:
        """Relative gap between value and bound."""
        return math.inf if self.value is None else relative_gap(float(self.value), self.bound, self.proved)


def minimised_value(space: Space, plan: ExactPlan, goal: Goal) -> Fraction:
    """Value of a goal with the sign with which it is minimised."""
    value = plan_value(space, plan, goal)
    return -value if goal is Goal.THROUGHPUT else value


class Search:
    """Best plan and best bound for one goal of one formulation."""

    def __init__(
        self,
        form: Formulation,
        goal: Goal,
        options: SolveOptions,
        deadline: float,
        caps: Mapping[Goal, Fraction],
    ) -> None:
        """``caps`` are upper limits of other goals' minimised values; the model has them as rows already."""
        self.form, self.goal, self.options, self.deadline = form, goal, options, deadline
        self.caps = dict(caps)
        self.out = Outcome()
        integers = all(form.model.variables[i].integer for i in form.model.objective)
        step = value_step(form.model.objective.values()) if integers else Fraction(0)
        self.step = step if step > 0 else Fraction(0)
        self.out.proved = PROVED_GAP if integers else PROVED_GAP_CONTINUOUS

    def run(self, start: list[float] | None = None) -> Outcome:
        """Search from an optional first solution."""
        try:
            if start is not None:
                self._offer(start, "start")
            if self._root() and not self._closed():
                self._branch()
                if not self._closed() and self.out.status != "infeasible":
                    self._first_plan()
                    self._prove()
        except KeyboardInterrupt:
            self.out.stopped_by = "interrupt"
        out = self.out
        if out.value is not None:
            # The bound comes from floating point; beyond the value it only says that both are equal.
            out.bound = float(out.value) if out.gap == 0.0 else min(out.bound, float(out.value))
            out.status = "optimal" if out.gap == 0.0 else "feasible"
        return out

    def _root(self) -> bool:
        """LP bound; false if that decides the search."""
        found = solve_linear(self.form.model, "glop", self._limits())
        self.out.solvers.append("glop")
        if found.status in ("infeasible", "unbounded"):
            # Serving nothing is always allowed, so throughput can only be without bound.
            self.out.status = "unbounded" if self.goal is Goal.THROUGHPUT else found.status
            return False
        self._bound(found.bound if found.status == "optimal" else -math.inf)
        if found.values is not None:
            ceiling = [
                float(math.ceil(v - 1e-9)) if c.integer else v
                for v, c in zip(found.values, self.form.model.variables, strict=True)
            ]
            self._offer(ceiling, "rounding")
        return True

    def _branch(self) -> None:
        """A tree of our own where whole numbers are few; ``--solver`` asks for another's word."""
        nodes = nodes_allowed(self.form.model) if self.options.solver == "auto" else 0
        if not nodes:
            return
        value = math.inf if self.out.value is None else float(self.out.value) / self._unit
        limits = self._limits()
        limits = replace(limits, seconds=max(0.2, limits.seconds * DIVE_SHARE))
        found = branch(self.form.model, limits, self.step, min(nodes, self.options.nodes or nodes), value)
        self.out.solvers.append("branching")
        if found.infeasible and self.out.plan is None:
            self._confirm_infeasible("branching")
            return
        self._bound(found.bound)
        if found.values is not None and not self._offer(found.values, "branching"):
            self._offer(self._polished(found.values), "branching")

    def _first_plan(self) -> None:
        limits = self._limits()
        limits = replace(limits, seconds=max(0.2, limits.seconds * DIVE_SHARE))
        coupled = bool(self.form.nodes or self.form.used)
        if coupled and self.options.solver == "auto" and len(self.form.space.pools) > POOLS:
            few = from_few_pools(self.form, limits)
            self._offer(few.values, few.solver)
            return
        found = dive(self.form.model, limits)
        if found is not None:
            self._offer(found, "dive")

    def _prove(self) -> None:
        for position, solver in enumerate(chain := self._chain()):
            if self._closed() or self.out.stopped_by or self.out.status == "infeasible":
                return
            rest = self.deadline - time.monotonic()
            if rest <= 0.05:
                break
            share = rest if position == len(chain) - 1 else rest * FIRST_SHARE
            self._run_solver(self.form.model, solver, share)
        if not self._closed() and self.out.status != "infeasible" and not self.out.stopped_by:
            limited = time.monotonic() > self.deadline - 0.2 or self.out.plan is None
            self.out.stopped_by = "time limit" if limited else "solver limits"

    def _chain(self) -> tuple[str, ...]:
        """Measured in benchmarks/bench_mixture.py: HiGHS proves most; CBC finishes what it leaves.

        Bounds that are not believed are no proof: after such a solver HiGHS has the word.
        """
        if self.options.solver in UNPROVEN:
            return (self.options.solver, "highs")
        if self.options.solver != "auto":
            return (self.options.solver,)
        return ("highs", "pulp-cbc")

    def _run_solver(self, model: LinearModel, solver: str, seconds: Seconds) -> None:
        found = solve_linear(model, solver, self._limits(seconds), self.out.values)
        self.out.solvers.append(solver)
        if found.status == "infeasible":
            self._confirm_infeasible(solver)
            return
        if solver not in UNPROVEN:
            self._bound(found.bound)
        if found.values is None or self._offer(found.values, solver) or self._closed():
            return
        if self._offer(self._polished(found.values), solver) or self._closed():
            return
        self._with_less_capacity(solver, seconds)

    def _confirm_infeasible(self, solver: str) -> None:
        """One solver's word is not enough: tight tolerances have made solvers call a good model infeasible."""
        if self.out.plan is not None:
            return
        other = "highs" if solver == "pulp-cbc" else "pulp-cbc"
        found = solve_linear(self.form.model, other, self._limits())
        self.out.solvers.append(other)
        if found.status == "infeasible":
            self.out.status = "infeasible"
        elif found.values is not None:
            self._bound(found.bound)
            self._offer(self._polished(found.values), other)

    def _polished(self, values: list[float]) -> list[float] | None:
        """Shares re-solved by LP with the whole numbers fixed: a basic solution has no solver noise in it."""
        fixed = self.form.model.copy()
        for index in fixed.integers():
            column = fixed.variables[index]
            column.lower = column.upper = float(round(values[index]))
            column.integer = False
        return solve_linear(fixed, "glop", self._limits()).values

    def _with_less_capacity(self, solver: str, seconds: Seconds) -> None:
        """A solution that lives on its solver's tolerance fails the exact check: allow it slightly less."""
        tight = self.form.model.copy()
        for row in tight.rows:
            if row.law in ("capacity", "KV egress", "KV ingress"):
                row.terms = {i: c * (1 - TIGHTEN) if c < 0 else c for i, c in row.terms.items()}
        again = solve_linear(tight, solver, self._limits(seconds), self.out.values)
        if again.values is not None:
            self._offer(self._polished(again.values), solver)

    def _offer(self, values: list[float] | None, source: str) -> bool:
        """Keep a solution if it is better and passes the exact re-check; return whether it is as good as it said."""
        if values is None:
            return False
        plan = draw_plan(self.form, values)
        checks = [*recheck(self.form.space, plan), *self._caps_hold(plan)]
        if violations(checks):
            return False
        value = minimised_value(self.form.space, plan, self.goal)
        if self.out.value is None or value < self.out.value:
            self.out.plan, self.out.values, self.out.value, self.out.checks = plan, values, value, checks
            self.out.solvers.append(source)
        said = self.form.model.value(values) * self._unit
        return float(value) <= said + 1e-7 * abs(said)

    @property
    def _unit(self) -> float:
        """The goal's value that one unit of the model's objective stands for."""
        return self.form.rate_unit if self.goal is Goal.THROUGHPUT else 1.0

    def _caps_hold(self, plan: ExactPlan) -> list[Check]:
        return [
            Check("goal", goal.value, minimised_value(self.form.space, plan, goal), cap)
            for goal, cap in self.caps.items()
        ]

    def _bound(self, bound: float) -> None:
        if math.isnan(bound):
            raise PlannerError("a solver returned no number as its bound")
        bound *= self._unit
        if self.out.value is not None and bound > float(self.out.value) + WRONG * abs(float(self.out.value)):
            return  # a checked plan beats what was "proved": that solver's word counts for nothing
        self.out.bound = max(self.out.bound, lift_bound(bound, self.step))

    def _closed(self) -> bool:
        return self.out.value is not None and (
            self.out.gap <= self.options.gap or self.out.bound >= float(self.out.value)
        )

    def _limits(self, seconds: Seconds | None = None) -> SolverLimits:
        rest = max(0.05, self.deadline - time.monotonic())
        # Less than one step between value and bound is proof: the bound is then lifted onto the value.
        step = float(self.step)
        absolute = 0.9 * step if step > 20 * float(BOUND_ERROR) * abs(self.out.bound) else 0.0
        return SolverLimits(
            seconds=min(rest, seconds or rest),
            nodes=self.options.nodes,
            work=self.options.work,
            seed=self.options.seed,
            absolute_gap=absolute,
            relative_gap=max(1e-9, self.options.gap),
        )
