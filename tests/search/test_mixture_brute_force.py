"""The optimiser against answers found by enumeration, in exact arithmetic."""

from __future__ import annotations

from dataclasses import replace

import mixture_cases as cases
import pytest

from planner.search.mixture import Goal, MixtureProblem, SolveOptions, solve_mixture


def _agrees(problem: MixtureProblem, expected: object) -> None:
    result = solve_mixture(problem)
    if expected is None or (expected == 0 and problem.goals[0] is Goal.THROUGHPUT):
        assert result.status == "infeasible"
        return
    assert result.status == "optimal"
    value = result.certificate.value
    assert value is not None
    sign = -1.0 if problem.goals[0] is Goal.THROUGHPUT else 1.0
    assert value * sign == pytest.approx(float(expected), rel=1e-8, abs=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", range(10))
def test_fractional_mixtures_of_two_types_equal_the_exact_knapsack(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        problem = cases.two_types(seed)
        _agrees(problem, cases.cheapest_of_two(problem))


@pytest.mark.parametrize("block", range(8))
def test_sliced_mixtures_of_three_types_equal_full_enumeration(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        problem = cases.three_types_sliced(seed)
        _agrees(problem, cases.cheapest_sliced(problem))


@pytest.mark.parametrize("block", range(10))
def test_roles_links_nodes_and_limits_equal_full_enumeration(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        problem = cases.one_class_with_roles(seed)
        _agrees(problem, cases.best_with_roles(problem))


@pytest.mark.parametrize("seed", range(3))
def test_the_independent_solver_finds_the_same_optimum(seed: int) -> None:
    for problem in (
        cases.two_types(1000 + seed),
        replace(cases.one_class_with_roles(1000 + seed), goals=(Goal.COST,)),
    ):
        first = solve_mixture(problem, SolveOptions("highs"))
        second = solve_mixture(problem, SolveOptions("pulp-cbc"))
        assert (first.status, first.certificate.value) == (second.status, second.certificate.value)


@pytest.mark.parametrize("seed", range(6))
def test_solvers_agree_on_fleets_of_many_roles_and_classes(seed: int) -> None:
    """HiGHS with tolerances of 1e-9 once proved a throughput 15 % below the optimum on a problem of this kind."""
    problem = cases.classes_with_roles(seed)
    first = solve_mixture(problem, SolveOptions("highs"))
    second = solve_mixture(problem, SolveOptions("pulp-cbc"))
    assert first.status == second.status == "optimal"
    assert first.certificate.value == pytest.approx(second.certificate.value, rel=1e-6)
