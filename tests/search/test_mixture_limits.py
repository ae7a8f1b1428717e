"""Limits that once broke: spot shares under dominance, chains of roles, pods on nodes, solvers without a word."""

from __future__ import annotations

import pytest

from planner.search.mixture import (
    Goal,
    Limits,
    MixtureProblem,
    Offer,
    RequestClass,
    Role,
    SolveOptions,
    Template,
    solve_mixture,
)

CLASSES = (RequestClass("x", "m", 1.0), RequestClass("y", "m", 1.0))


def test_a_wider_template_stays_where_it_earns_a_spot_share() -> None:
    """Four GPUs on demand allow four on spot; the narrower template of equal capacity allows only three."""
    templates = (
        Template("wide", "m", {"a": 4}, {"x": 1.0}),
        Template("narrow", "m", {"a": 3}, {"x": 1.0}),
        Template("other", "m", {"b": 4}, {"y": 1.0}),
    )
    offers = (Offer("a", "a", 1.0, 4), Offer("b", "b", 0.1, 4, spot=True))
    found = solve_mixture(MixtureProblem(templates, offers, CLASSES, Limits(spot_share=0.5)))
    assert found.plan is not None and {r.template for r in found.plan.replicas} == {"wide", "other"}
    free = solve_mixture(MixtureProblem(templates, offers, CLASSES))
    assert free.plan is not None and {r.template for r in free.plan.replicas} == {"narrow", "other"}


@pytest.mark.parametrize("goal", [Goal.COST, Goal.THROUGHPUT])
@pytest.mark.parametrize("solver", ["auto", "highs", "scip", "cp-sat", "pulp-cbc"])
def test_prefill_without_decode_is_infeasible_and_says_so(goal: Goal, solver: str) -> None:
    templates = (Template("p", "m", {"a": 1}, {"x": 1.0, "y": 1.0}, Role.PREFILL),)
    problem = MixtureProblem(templates, (Offer("a", "a", 1.0, 9),), CLASSES, goals=(goal,))
    found = solve_mixture(problem, SolveOptions(solver))
    assert (found.status, found.plan) == ("infeasible", None)
    assert "no complete chain of roles" in found.shortfall[0].message and "prefill" in found.shortfall[0].message


def test_a_region_floor_that_nobody_can_serve_is_named() -> None:
    templates = (Template("a", "m", {"a": 1}, {"x": 1.0, "y": 1.0}),)
    offers = (Offer("eu", "a", 1.0, 0, region="eu"), Offer("us", "a", 1.0, 9, region="us"))
    found = solve_mixture(MixtureProblem(templates, offers, CLASSES, Limits(region_floor={"eu": 0.5})))
    assert found.status == "infeasible"
    assert any("eu" in r.message for r in (*found.relax, *found.shortfall))


def test_the_parts_of_a_pod_stand_in_different_nodes() -> None:
    """Five single GPUs and a pair fit on two nodes of four; a block of seven would take them as well, but alone."""
    pod = Template("pod", "m", {"a": 7}, {"x": 1.0}, pieces={"a": (1, 1, 1, 1, 1, 2)})
    one = Template("one", "m", {"a": 1}, {"y": 1.0})
    offers = (Offer("a", "a", 1.0, 16, node_gpus=4),)
    found = solve_mixture(MixtureProblem((pod, one), offers, CLASSES))
    assert found.plan is not None and (found.plan.cost, found.plan.nodes) == (8.0, {"a": 2})
    block = Template("pod", "m", {"a": 7}, {"x": 1.0})
    whole = solve_mixture(MixtureProblem((block, one), offers, CLASSES))
    assert whole.plan is not None and whole.plan.nodes == {"a": 3}
