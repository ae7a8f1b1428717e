"""Branch and bound over few whole numbers, against enumeration and another solver."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from fractions import Fraction

import mixture_cases as cases
import pytest

from planner.search.mixture import Limits, MixtureProblem, Offer, RequestClass, SolveOptions, Template, solve_mixture
from planner.search.mixture.backends import SolverLimits
from planner.search.mixture.branching import branch, nodes_allowed
from planner.search.mixture.exact_plan import draw_plan
from planner.search.mixture.formulation import formulate
from planner.search.mixture.linear import LinearModel
from planner.search.mixture.recheck import recheck, violations
from planner.search.mixture.relaxation import Relaxation
from planner.search.mixture.restricted import from_few_pools
from planner.search.mixture.space import build_space

LIMITS = SolverLimits(seconds=20.0)


def covering(seed: int) -> LinearModel:
    """Three whole numbers up to 6 with whole prices, covering and packing rows; some have no solution."""
    rng = random.Random(seed)
    model = LinearModel()
    columns = [model.variable(f"n{i}", upper=6.0, integer=True) for i in range(3)]
    for r in range(rng.randint(1, 3)):
        weights = [float(rng.randint(0, 9)) for _ in columns]
        model.row("cover", f"{r}", zip(columns, weights, strict=True), lower=float(rng.randint(1, 60)))
    model.row("pack", "all", [(c, float(rng.randint(1, 4))) for c in columns], upper=float(rng.randint(6, 40)))
    model.minimise({c: float(rng.randint(1, 20)) for c in columns})
    return model


def cheapest(model: LinearModel) -> float:
    """By trying every triple."""
    best = math.inf
    for counts in itertools.product(range(7), repeat=3):
        used = [sum(c * counts[i] for i, c in row.terms.items()) for row in model.rows]
        if all(row.lower <= u <= row.upper for row, u in zip(model.rows, used, strict=True)):
            best = min(best, model.value([float(c) for c in counts]))
    return best


def many_types(seed: int) -> MixtureProblem:
    """Six GPU types with inventory, 30 classes; few whole numbers, so branching has the first word."""
    rng = random.Random(seed)
    classes = tuple(RequestClass(f"c{i}", "m", rng.randint(1, 40) / 10) for i in range(30))
    templates = tuple(
        Template(g, "m", {g: 1}, {c.id: rng.choice((0, *range(5, 60))) / 10 for c in classes}) for g in "abcdef"
    )
    offers = tuple(Offer(g, g, rng.randint(50, 500) / 100, rng.choice((None, rng.randint(3, 20)))) for g in "abcdef")
    return MixtureProblem(templates, offers, classes)


@pytest.mark.parametrize("block", range(4))
def test_the_tree_finds_what_enumeration_finds(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        model = covering(seed)
        expected, found = cheapest(model), branch(model, LIMITS, Fraction(1), 1000)
        assert found.infeasible == math.isinf(expected)
        if not found.infeasible:
            assert found.value == pytest.approx(expected, abs=1e-6) == found.bound


def test_a_tree_cut_short_still_bounds_every_solution() -> None:
    for seed in range(60):
        model = covering(seed)
        found = branch(model, LIMITS, Fraction(0), 2)
        assert found.bound <= cheapest(model) + 1e-6
        assert found.value >= cheapest(model) - 1e-6
        assert not found.infeasible or math.isinf(cheapest(model))


@pytest.mark.parametrize("seed", range(4))
def test_six_types_and_many_classes_equal_an_independent_solver(seed: int) -> None:
    first = solve_mixture(many_types(seed))
    second = solve_mixture(many_types(seed), SolveOptions("pulp-cbc"))
    assert "branching" in first.certificate.solver
    assert (first.status, first.certificate.value) == (second.status, second.certificate.value)


def test_models_with_many_whole_numbers_are_left_to_others() -> None:
    model = LinearModel()
    for i in range(60):
        model.variable(f"n{i}", integer=True)
    assert nodes_allowed(model) == 0
    assert nodes_allowed(covering(1)) > 0


def test_a_known_value_stops_the_tree_at_once_where_it_is_the_best() -> None:
    model = covering(3)
    best = cheapest(model)
    assert math.isfinite(best)
    found = branch(model, LIMITS, Fraction(1), 1000, best)
    assert found.bound == pytest.approx(best) and not found.infeasible


def test_bounds_that_move_give_the_value_of_a_fresh_relaxation() -> None:
    model = covering(3)
    moved = Relaxation(model)
    assert moved.solve(5.0) == "optimal"
    moved.bound(0, 2.0, 3.0)
    model.variables[0].lower, model.variables[0].upper = 2.0, 3.0
    fresh = Relaxation(model)
    assert moved.solve(5.0) == fresh.solve(5.0) == "optimal"
    assert moved.value == pytest.approx(fresh.value) and fresh.values()[0] == pytest.approx(moved.values()[0])


def test_an_impossible_mixture_is_confirmed_by_another_solver() -> None:
    problem = cases.two_types(0)
    short = tuple(Offer(o.id, o.gpu, o.price, 0) for o in problem.offers[:1])
    templates = tuple(t for t in problem.templates if t.id == short[0].gpu)
    result = solve_mixture(MixtureProblem(templates, short, problem.classes))
    assert result.status == "infeasible"


def test_a_plan_from_few_pools_is_a_plan_of_the_whole_and_no_better_than_the_optimum() -> None:
    for seed in range(4):
        problem = replace(many_types(seed), limits=Limits(spare_replicas=1))
        best = solve_mixture(problem)
        form = formulate(build_space(problem))
        few = from_few_pools(form, LIMITS, most=4)
        if few.values is None:
            continue
        plan = draw_plan(form, few.values)
        assert not violations(recheck(form.space, plan))
        assert sum(1 for k in form.replicas if few.values[k] > 0.5) <= 4
        assert best.plan is not None and form.model.value(few.values) >= best.plan.cost * (1 - 1e-9)
        assert few.bound == -math.inf
