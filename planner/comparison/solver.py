"""The exact mixture of a menu, with replicas that miss a limit at the load they were given taken out of the menu."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.comparison.fleets import FleetOffer
from planner.job.comparing import ComparisonRequest
from planner.job.slo import Slo
from planner.mixed_plan import pool_parts
from planner.search.mixed import Menu, problem_of
from planner.search.mixture import (
    Goal,
    Limits,
    MixtureProblem,
    MixtureResult,
    Offer,
    SolveOptions,
    solve_mixture,
)
from planner.search.mixture.marginal import marginal_values
from planner.search.ranking import Candidate

# Solves until no replica misses a limit at its load; before the last one all pipelines are taken out.
_ATTEMPTS = 6
# Latencies near a capacity are interpolated in tables: so much above a limit is not a miss.
_ROUNDING = 2e-3
# A gain that is below the digits shown is none.
_NOTHING = 5e-5


@dataclass(frozen=True, slots=True)
class Marginal:
    """What one more GPU is worth, by exact re-solve: $/h saved at the rate, and output tokens/s gained on the fleet."""

    gpu: str
    usd_per_hour: float
    output_rate: float


@dataclass(frozen=True, slots=True)
class Solved:
    """The best mixture whose replicas keep their limits at the load they get.

    Attributes
    ----------
    left_out : kinds of units that missed a limit at the load that a better mixture would have given them. The proof of
        ``result`` is among the others; ``missed`` is the relative gain over it that no mixture with them can exceed.
    late : kinds in ``result`` that still miss a limit at their load.
    """

    result: MixtureResult
    left_out: tuple[str, ...] = ()
    missed: float = 0.0
    late: tuple[str, ...] = ()

    @property
    def matters(self) -> bool:
        """Whether a mixture with the units left out could be better."""
        return bool(self.left_out) and self.missed > _NOTHING

    @property
    def notes(self) -> list[str]:
        """What a reader of the proof must know."""
        found = []
        if self.matters:
            throughput = self.result.certificate.objective == Goal.THROUGHPUT.value
            found.append(
                f"the optimum is among the units that keep the limits at the load they get; left out: "
                f"{', '.join(self.left_out)} (with them at most {self.missed:.2%} {'more' if throughput else 'less'})"
            )
        found += [f"{name} misses a limit at the load that it gets here" for name in self.late]
        return found


@dataclass(frozen=True, slots=True)
class Solver:
    """The exact mixture of one menu under the rules that were asked."""

    menu: Menu
    asked: ComparisonRequest
    goals: tuple[Goal, ...]

    @property
    def limits(self) -> Limits:
        """Rows beside demand and inventory."""
        rules = self.asked.rules
        floors = {region: share for region, share in rules.region_floor if share > 0}
        return Limits(rules.headroom, rules.spare, rules.budget, rules.power, rules.spot_share, floors)

    @property
    def options(self) -> SolveOptions:
        """Who solves, and for how long."""
        return SolveOptions(solver=self.asked.rules.solver, seconds=self.asked.rules.seconds)

    def goals_for(self, scale: float | None) -> tuple[Goal, ...]:
        """A rate is carried; without one, the most is."""
        rest = tuple(goal for goal in self.goals if goal is not Goal.THROUGHPUT)
        return rest if scale is not None else (Goal.THROUGHPUT, *rest)

    def solve(self, offers: tuple[Offer, ...], scale: float | None, *, placed: bool = True) -> Solved:
        """Best mixture on ``offers`` for the classes' rates times ``scale``, or the most of their mix.

        Offers that are not ``placed``, as those of unlimited types, stand in no region and are free of the floors.
        """
        limits = self.limits if placed else replace(self.limits, region_floor={})
        return self._in_time(problem_of(self.menu, offers, scale=scale, limits=limits, goals=self.goals_for(scale)))

    def _in_time(self, problem: MixtureProblem) -> Solved:
        """Solve, take out what misses a limit at its load, and solve again.

        The first solve has every unit, so its bound holds for all of them and tells what taking out may have cost.
        """
        first = result = solve_mixture(problem, self.options)
        late = self._late(result)
        out: set[str] = set()
        for attempt in range(1, _ATTEMPTS):
            if not late:
                break
            last = attempt == _ATTEMPTS - 1
            out |= {t for (t, _), c in self.menu.candidates.items() if c.layout.pp > 1} if last else late
            kept = tuple(t for t in problem.templates if t.id not in out)
            result = solve_mixture(replace(problem, templates=kept), self.options)
            late = self._late(result)
        named = {t.id for t in problem.templates} & out
        return Solved(result, tuple(sorted(named)), _missed(first, result), tuple(sorted(late)))

    def _late(self, result: MixtureResult) -> set[str]:
        """Templates that miss a limit at the load they were given: less load is not always faster, because chunks that
        ride alone hold up a pipeline. Where a unit serves several classes the load of each is not known so exactly."""
        if result.plan is None:
            return set()
        plan, late = result.plan, set()
        for kind in plan.replicas:
            parts = pool_parts(self.menu, plan, kind)
            if len(parts) == 1 and self._misses(parts[0][0], self.asked.slo(kind.model)):
                late.add(kind.template)
        return late

    def _misses(self, candidate: Candidate, slo: Slo) -> bool:
        m = candidate.per_replica
        seen = {"ttft": m.ttft[slo.percentile], "tpot": m.tpot[slo.percentile], "e2e": m.e2e[slo.percentile]}
        return any(seen[name] > limit * (1 + _ROUNDING) for name, limit in slo.limits.items())

    def marginal(self, union: FleetOffer, scale: float | None) -> tuple[Marginal, ...]:
        """Both views of one more GPU: money saved at the asked rate, and output gained when everything is used.

        Replicas that would miss a limit at their load are taken out of these mixtures too.
        """

        def gains(goal_scale: float | None, goal: Goal) -> dict[str, float]:
            problem = problem_of(self.menu, union.offers, scale=goal_scale, limits=self.limits, goals=(goal,))
            found = marginal_values(problem, self.options, lambda question: self._in_time(question).result)
            return {m.offer: m.gain / m.gpus for m in found}

        saved = gains(scale, Goal.COST) if scale is not None and not union.unpriced else {}
        gained = gains(None, Goal.THROUGHPUT)
        return tuple(
            Marginal(offer.id, saved.get(offer.id, 0.0), gained.get(offer.id, 0.0) * _tokens(self.menu))
            for offer in union.offers
            if offer.available is not None
        )


def _missed(first: MixtureResult, last: MixtureResult) -> float:
    """Relative gain that the bound of the first solve leaves over the value of the last."""
    bound, value = first.certificate.bound, last.certificate.value
    if first is last or bound is None or not value:
        return 0.0
    return abs(value - bound) / abs(value)


def _tokens(menu: Menu) -> float:
    """Output tokens/s of the classes' rates."""
    return sum(c.rate * c.osl for c in menu.classes)
