"""Each law of the mixture on a case small enough to do by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.search.mixture import (
    Goal,
    KvLink,
    Limits,
    MixturePlan,
    MixtureProblem,
    Offer,
    RequestClass,
    Role,
    Template,
    solve_mixture,
)


def _engine(tp: int, rate: float, **more: object) -> Template:
    return Template(f"tp{tp}", "m", {"h": tp}, {"c": rate}, **more)  # type: ignore[arg-type]


def _plan(problem: MixtureProblem) -> MixturePlan:
    result = solve_mixture(problem)
    assert result.plan is not None and result.status == "optimal"
    return result.plan


def _counts(plan: MixturePlan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for replica in plan.replicas:
        counts[replica.template] = counts.get(replica.template, 0) + replica.count
    return counts


ENGINES = (_engine(1, 1.0), _engine(2, 2.3), _engine(4, 5.0))
SEVEN = Offer("h", "h", 2.0, available=7)
REQUEST = RequestClass("c", "m", 3.0)


def test_seven_gpus_run_replicas_of_unequal_size() -> None:
    """4 + 2 + 1 carries 5 + 2.3 + 1 = 8.3 requests/s; equal replicas of two would idle a GPU and carry 6.9."""
    plan = _plan(MixtureProblem(ENGINES, (SEVEN,), (REQUEST,), goals=(Goal.THROUGHPUT,)))
    assert _counts(plan) == {"tp1": 1, "tp2": 1, "tp4": 1}
    assert plan.rate_multiple * 3.0 == pytest.approx(8.3)
    assert plan.gpus_total == 7


def test_headroom_and_a_spare_replica_are_added_to_the_load() -> None:
    """3 requests/s at 80 % of 1 request/s each need 4 replicas, and one that may fail."""
    problem = MixtureProblem(ENGINES[:1], (replace(SEVEN, available=None),), (REQUEST,))
    assert _counts(_plan(replace(problem, limits=Limits(utilisation=0.8)))) == {"tp1": 4}
    assert _counts(_plan(replace(problem, limits=Limits(utilisation=0.8, spare_replicas=1)))) == {"tp1": 5}


def test_prefill_and_decode_carry_the_same_requests() -> None:
    roles = (
        Template("p", "m", {"h": 1}, {"c": 3.0}, Role.PREFILL),
        Template("d", "m", {"l": 1}, {"c": 0.8}, Role.DECODE),
    )
    offers = (Offer("h", "h", 4.0), Offer("l", "l", 1.0))
    plan = _plan(MixtureProblem(roles, offers, (REQUEST,)))
    assert _counts(plan) == {"p": 1, "d": 4}
    assert plan.assignment["c"] == pytest.approx({"p": 3.0, "d": 3.0})


def test_attention_and_ffn_carry_the_same_requests() -> None:
    roles = (
        Template("attn", "m", {"h": 1}, {"c": 1.0}, Role.ATTENTION),
        Template("ffn", "m", {"l": 2}, {"c": 1.5}, Role.FFN),
    )
    offers = (Offer("h", "h", 4.0), Offer("l", "l", 1.0))
    plan = _plan(MixtureProblem(roles, offers, (replace(REQUEST, prefilled=True),)))
    assert _counts(plan) == {"attn": 3, "ffn": 2}


def test_kv_links_of_the_replicas_set_their_number() -> None:
    """3 requests/s of 1 GB through 0.7 GB/s per prefill replica need 5 of them, though 1 has the compute."""
    roles = (
        Template("p", "m", {"h": 1}, {"c": 3.0}, Role.PREFILL, kv_egress=0.7e9),
        Template("d", "m", {"h": 1}, {"c": 3.0}, Role.DECODE, kv_ingress=1.6e9),
    )
    request = replace(REQUEST, kv_bytes=1e9)
    assert _counts(_plan(MixtureProblem(roles, (replace(SEVEN, available=None),), (request,)))) == {
        "p": 5,
        "d": 2,
    }


def test_kv_crosses_fabrics_only_over_listed_links() -> None:
    roles = (
        Template("p", "m", {"h": 1}, {"c": 3.0}, Role.PREFILL, fabric="ib"),
        Template("cheap", "m", {"l": 1}, {"c": 3.0}, Role.DECODE, fabric="eth"),
        Template("dear", "m", {"h": 1}, {"c": 1.0}, Role.DECODE, fabric="ib"),
    )
    offers = (Offer("h", "h", 4.0), Offer("l", "l", 1.0))
    request = replace(REQUEST, kv_bytes=1e9)
    problem = MixtureProblem(roles, offers, (request,))
    assert _counts(_plan(problem)) == {"p": 1, "cheap": 1}
    alone = replace(problem, limits=Limits(kv_links=()))
    assert _counts(_plan(alone)) == {"p": 1, "dear": 3}
    linked = replace(problem, limits=Limits(kv_links=(KvLink("ib", "eth", 2e9),)))
    assert _counts(_plan(linked)) == {"p": 1, "cheap": 1, "dear": 1}


def test_nodes_are_paid_for_whole_and_sizes_that_do_not_nest_need_patterns() -> None:
    """Two replicas of 5 and one of 3 GPUs fill nodes of 8 as 5+3 and 5: two nodes; three of 5 need three."""
    templates = (Template("five", "m", {"h": 5}, {"c": 5.0}), Template("three", "m", {"h": 3}, {"d": 1.0}))
    offer = Offer("h", "h", 1.0, node_gpus=8)
    classes = (RequestClass("c", "m", 10.0), RequestClass("d", "m", 1.0))
    plan = _plan(MixtureProblem(templates, (offer,), classes))
    assert plan.nodes == {"h": 2} and plan.cost == 16.0
    more = _plan(MixtureProblem(templates, (offer,), (RequestClass("c", "m", 15.0), classes[1])))
    assert more.nodes == {"h": 3} and more.gpus == {"h": 24}


def test_twelve_owned_gpus_in_nodes_of_eight_are_eight_and_four() -> None:
    eight = MixtureProblem(
        (Template("tp8", "m", {"h": 8}, {"c": 9.0}), Template("tp4", "m", {"h": 4}, {"c": 4.0})),
        (Offer("h", "h", 1.0, available=12, node_gpus=8),),
        (REQUEST,),
        goals=(Goal.THROUGHPUT,),
    )
    assert _counts(_plan(eight)) == {"tp8": 1, "tp4": 1}


def test_spot_share_region_floor_and_budget_shape_the_fleet() -> None:
    offers = (
        Offer("east", "h", 2.0, region="east"),
        Offer("east-spot", "h", 1.0, region="east", spot=True),
        Offer("west", "h", 3.0, region="west"),
    )
    problem = MixtureProblem(ENGINES[:1], offers, (replace(REQUEST, rate=4.0),))
    assert _plan(problem).gpus == {"east-spot": 4}
    assert _plan(replace(problem, limits=Limits(spot_share=0.5))).gpus == {"east": 2, "east-spot": 2}
    floor = _plan(replace(problem, limits=Limits(region_floor={"west": 0.25})))
    assert floor.gpus == {"east-spot": 3, "west": 1}
    assert floor.assignment["c"]["tp1@west"] == pytest.approx(1.0)
    budget = replace(problem, limits=Limits(budget=2.5), goals=(Goal.THROUGHPUT,))
    assert _plan(budget).rate_multiple == pytest.approx(0.5)


def test_models_share_one_fleet() -> None:
    templates = (Template("a", "one", {"h": 1}, {"c": 1.0}), Template("b", "two", {"h": 2}, {"d": 1.0}))
    classes = (RequestClass("c", "one", 1.0), RequestClass("d", "two", 1.0))
    plan = _plan(MixtureProblem(templates, (replace(SEVEN, available=9),), classes, goals=(Goal.THROUGHPUT,)))
    assert plan.rate_multiple == pytest.approx(3.0)
    assert _counts(plan) == {"a": 3, "b": 3}


def test_a_cross_type_pipeline_takes_gpus_of_every_type() -> None:
    templates = (
        Template("mix", "m", {"h": 1, "l": 2}, {"c": 2.0}),
        Template("h", "m", {"h": 1}, {"c": 1.0}),
        Template("l", "m", {"l": 1}, {"c": 0.1}),
    )
    offers = (Offer("h", "h", 4.0, 2), Offer("l", "l", 0.5, 3))
    plan = _plan(MixtureProblem(templates, offers, (REQUEST,)))
    assert _counts(plan) == {"mix": 1, "h": 1} and plan.gpus == {"h": 2, "l": 2}


def test_power_gpus_and_ties_are_goals_too() -> None:
    """Cheapest is 3 dollars both ways; the second goal picks the fewer GPUs, or the fewer watts."""
    templates = (
        Template("big", "m", {"h": 1}, {"c": 3.0}, power=900.0),
        Template("small", "m", {"l": 1}, {"c": 1.0}, power=100.0),
    )
    offers = (Offer("h", "h", 3.0), Offer("l", "l", 1.0))
    problem = MixtureProblem(templates, offers, (REQUEST,), goals=(Goal.COST, Goal.GPUS))
    assert _counts(_plan(problem)) == {"big": 1}
    assert _counts(_plan(replace(problem, goals=(Goal.COST, Goal.POWER)))) == {"small": 3}
    assert _counts(_plan(replace(problem, goals=(Goal.POWER,), limits=Limits(budget=10.0)))) == {"small": 3}


def test_tiny_and_huge_numbers_are_scaled() -> None:
    """A class that needs a billionth of a replica still needs one; 1e18 replicas are counted exactly."""
    one = (Template("h", "m", {"h": 1}, {"c": 1e9}),)
    assert _counts(_plan(MixtureProblem(one, (Offer("h", "h", 1e-9),), (RequestClass("c", "m", 1e-9),)))) == {"h": 1}
    slow = (Template("h", "m", {"h": 1}, {"c": 1e-9}),)
    assert _counts(_plan(MixtureProblem(slow, (Offer("h", "h", 1e9),), (RequestClass("c", "m", 1e9),)))) == {
        "h": 10**18
    }


def test_node_links_in_bytes_do_not_break_the_solver() -> None:
    """A link row of 1e12 bytes beside shares of 1 once made a solver call a worse plan optimal."""
    roles = (
        Template("p", "m", {"h": 1}, {"c": 30.0}, Role.PREFILL, kv_egress=5e10),
        Template("d", "m", {"h": 1}, {"c": 7.0}, Role.DECODE),
        Template("a", "m", {"h": 2}, {"c": 9.0}),
    )
    request = RequestClass("c", "m", 100.0, kv_bytes=1.1e9)
    plan = _plan(MixtureProblem(roles, (Offer("h", "h", 1.0),), (request,)))
    # prefill needs max(100/30, 110/50) -> 4, decode 100/7 -> 15; 14 decode carry 98, then 1 aggregated is no better
    assert plan.cost == 19.0
