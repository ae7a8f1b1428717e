"""Fleets side by side: exact mixtures equal brute force, and every limit holds in the answer."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs, compare, search
from planner.comparison import Comparison, merged
from planner.comparison.fleets import largest
from planner.errors import InputError
from planner.job.comparing import ComparisonRequest, parse_comparison
from planner.job.parse import parse_job
from planner.plan import Plan
from planner.search.mixed import Menu, build_menu
from planner.search.mixture import Offer
from planner.serving.engine import load_engine

PRICES = Catalogs().hardware


def asked(*fleet: str, model: str = "llama-3.1-8b", **words: Any) -> ComparisonRequest:
    options: dict[str, Any] = {
        "workload": None, "trace": None, "rate": None, "isl": "1000", "osl": "200", "headroom": "100%", "spare": 0,
        "budget": None, "spot_share": None, "solver": "auto", "time_limit": "60s", "ttft": "1s", "tpot": "40ms",
        "weights": "bf16", "kv": "bf16",
    }  # fmt: skip
    return parse_comparison(model=model, fleet=list(fleet), **{**options, **words})


def plan(found: Comparison, fleet: str) -> Plan:
    (entry,) = [e for e in found.entries if e.fleet == fleet]
    assert entry.plan is not None, entry.reason
    return entry.plan


def menu_of(request: ComparisonRequest) -> Menu:
    known = Catalogs()
    # Enough GPUs for the layouts that an unlimited fleet could want: a menu is the same for all fleets.
    found = [s for fleet in request.fleets for s in known.fleet_offer(fleet).supplies]
    supplies = [replace(s, count=2 * s.accelerator.gpus_per_node) for s in found]
    return build_menu(known.model(request.job.model), load_engine("vllm"), supplies, request.job, request.classes)


def kinds(menu: Menu) -> list[tuple[str, int, float]]:
    """GPU type, GPUs and requests/s of every kind of replica, one request class."""
    return [(gpu, size, t.capacity["all"]) for t in menu.templates for gpu, size in t.gpus.items()]


def most(menu: Menu, fleet: dict[str, int]) -> float:
    """Requests/s of the best mixture: each type on its own, every way to cut its GPUs into replicas."""
    total = 0.0
    for gpu, count in fleet.items():
        best = [0.0] * (count + 1)
        for used in range(1, count + 1):
            options = [best[used - size] + rate for g, size, rate in kinds(menu) if g == gpu and size <= used]
            best[used] = max([best[used - 1], *options])
        total += best[count]
    return total


def cheapest(menu: Menu, fleet: dict[str, int], price: dict[str, float], rate: float) -> float:
    """Least cost over all numbers of GPUs of each type, each carrying the most that it can."""
    costs = [math.inf]
    for counts in itertools.product(*(range(n + 1) for n in fleet.values())):
        part = dict(zip(fleet, counts, strict=True))
        if most(menu, part) >= rate * (1 - 1e-9):
            costs.append(sum(n * price[g] for g, n in part.items()))
    return min(costs)


def price(gpu: str) -> float:
    found = PRICES.reference_price(gpu)
    assert found is not None
    return found.usd_per_gpu_hour


@pytest.mark.parametrize(
    ("model", "fleet"), [("llama-3.1-70b", {"h100-sxm": 7}), ("llama-3.1-8b", {"l40s": 3, "h100-sxm": 2})]
)
def test_goodput_equals_brute_force(model: str, fleet: dict[str, int]) -> None:
    request = asked(",".join(f"{g}:{n}" for g, n in fleet.items()), model=model)
    found = compare(request).entries[0].plan
    assert found is not None
    assert found.predicted.request_rate == pytest.approx(most(menu_of(request), fleet), rel=1e-5)
    assert found.certificate.status == "optimal"


@pytest.mark.parametrize("rate", [3.0, 25.0, 50.0])
def test_the_cheapest_fleet_for_a_rate_equals_brute_force(rate: float) -> None:
    request = asked("h100-sxm:3", "l40s:6", rate=f"{rate}/s")
    found, menu = compare(request), menu_of(request)
    prices = {"h100-sxm": price("h100-sxm"), "l40s": price("l40s")}
    for name, fleet in (
        ("h100-sxm:3", {"h100-sxm": 3}),
        ("l40s:6", {"l40s": 6}),
        ("union", {"h100-sxm": 3, "l40s": 6}),
    ):
        expected = cheapest(menu, fleet, prices, rate)
        (entry,) = [e for e in found.entries if e.fleet == name]
        got = math.inf if entry.plan is None else entry.plan.cost_usd_per_hour
        assert got == pytest.approx(expected, rel=1e-5)


def test_the_union_is_never_worse_than_any_given_fleet() -> None:
    free = compare(asked("h100-sxm:2", "l40s:4"))
    assert plan(free, "union").predicted.request_rate >= max(
        plan(free, name).predicted.request_rate for name in ("h100-sxm:2", "l40s:4")
    )
    rated = compare(asked("h100-sxm:2", "l40s:6", rate="12/s"))
    costs = [e.plan.cost_usd_per_hour for e in rated.entries if e.given and e.plan is not None]
    assert plan(rated, "union").cost_usd_per_hour == min(c for c in costs if c is not None)


def test_seven_gpus_run_unequal_replicas_where_that_carries_more() -> None:
    """A 70B model in bf16 fits on two GPUs at the least: 4 + 2 (the seventh idles) beats 2 + 2 + 2."""
    request = asked("h100-sxm:7", model="llama-3.1-70b")
    found, menu = plan(compare(request), "h100-sxm:7"), menu_of(request)
    equal = max(7 // size * rate for _, size, rate in kinds(menu))
    assert found.mode == "mixed" and len({(p.layout.tp, p.layout.pp) for p in found.pools}) > 1
    assert found.predicted.request_rate > 1.05 * equal
    used = sum(p.replicas * p.layout.tp * p.layout.pp for p in found.pools)
    assert (found.gpus_total, found.gpus_idle) == (used, 7 - used)


def test_headroom_spare_and_budget_hold_in_the_plan() -> None:
    free = plan(compare(asked("h100-sxm:4")), "h100-sxm:4").predicted.request_rate
    tight = plan(compare(asked("h100-sxm:4", headroom="80%")), "h100-sxm:4")
    assert tight.predicted.request_rate == pytest.approx(0.8 * free, rel=1e-5)
    spared = plan(compare(asked("h100-sxm:4", spare=1)), "h100-sxm:4")
    assert spared.predicted.request_rate == pytest.approx(0.75 * free, rel=1e-5)
    budget = 2.5 * price("h100-sxm")
    poor = plan(compare(asked("h100-sxm:4", budget=f"{budget}usd/h")), "h100-sxm:4")
    assert poor.cost_usd_per_hour is not None and poor.cost_usd_per_hour <= budget
    assert poor.predicted.request_rate == pytest.approx(0.5 * free, rel=1e-5)


def offers(tmp_path: Path, *rows: str, name: str = "mine") -> str:
    path = tmp_path / f"{name}.yaml"
    path.write_text("offers:\n" + "".join(f"  - {{{row}}}\n" for row in rows))
    return str(path)


def test_two_offers_of_one_gpu_carry_what_as_many_of_one_offer_do(tmp_path: Path) -> None:
    mixed = offers(tmp_path, "gpu: h100-sxm, count: 1, usd_per_gpu_hour: 3",
                   "gpu: h100-sxm, count: 2, usd_per_gpu_hour: 1, spot: true")  # fmt: skip
    found = compare(asked(mixed, "h100-sxm:3"))
    terms, plain = plan(found, "mine"), plan(found, "h100-sxm:3")
    # sums of two offers and of one round differently in the last of six digits
    assert terms.predicted.output_tok_s_per_gpu == pytest.approx(plain.predicted.output_tok_s_per_gpu, rel=1e-5)
    assert terms.predicted.tpot_ms == plain.predicted.tpot_ms and terms.predicted.ttft_ms == plain.predicted.ttft_ms
    assert terms.gpus == plain.gpus == {"h100-sxm": 3}
    assert terms.cost_usd_per_hour == pytest.approx(1 * 3 + 2 * 1)
    assert sorted(terms.notes) == ["1 x h100-sxm on demand at 3 $/h", "2 x h100-sxm spot at 1 $/h"]
    few = plan(compare(asked(mixed, spot_share="50%")), "mine")
    assert few.gpus == {"h100-sxm": 2} and few.cost_usd_per_hour == pytest.approx(3 + 1)


def test_regions_add_up(tmp_path: Path) -> None:
    fleets = [offers(tmp_path, f"gpu: h100-sxm, count: 2, region: {r}", name=r) for r in ("eu", "us")]
    found = compare(asked(*fleets))
    assert plan(found, "union").predicted.request_rate == pytest.approx(
        sum(plan(found, r).predicted.request_rate for r in ("eu", "us")), rel=1e-5
    )
    assert {m.gpu for m in found.marginal} == {"h100-sxm eu", "h100-sxm us"}


def test_nodes_are_rented_whole(tmp_path: Path) -> None:
    """One GPU would do; a node of four is what there is."""
    nodes = offers(tmp_path, "gpu: h100-sxm, count: 8, usd_per_gpu_hour: 2, node_gpus: 4")
    found = plan(compare(asked(nodes, rate="1/s")), "mine")
    assert (found.gpus, found.cost_usd_per_hour) == ({"h100-sxm": 4}, 8)


def test_the_marginal_value_is_that_of_solving_again_with_one_more() -> None:
    found = compare(asked("h100-sxm:2", "l40s:3", rate="40/s"))
    for index, (gpu, fleets) in enumerate((("h100-sxm", "h100-sxm:3,l40s:3"), ("l40s", "h100-sxm:2,l40s:4"))):
        value = found.marginal[index]
        more = compare(asked(fleets, rate="40/s")).entries[0].plan
        before = plan(found, "union")
        assert more is not None and value.gpu == gpu
        assert more.cost_usd_per_hour is not None and before.cost_usd_per_hour is not None
        assert value.usd_per_hour == pytest.approx(before.cost_usd_per_hour - more.cost_usd_per_hour, abs=1e-3)
        outputs = [compare(asked(f)).entries[0].plan for f in ("h100-sxm:2,l40s:3", fleets)]
        gain = outputs[1].predicted.output_tok_s - outputs[0].predicted.output_tok_s  # type: ignore[union-attr]
        assert value.output_rate == pytest.approx(gain, rel=1e-3, abs=0.5)


def test_unlimited_types_carry_the_rate_alone() -> None:
    found = compare(asked("h100-sxm:1", "l40s:1", rate="200/s"))
    assert [e.fleet for e in found.entries] == ["h100-sxm:1", "l40s:1", "union", "unlimited h100-sxm", "unlimited l40s"]
    assert [e.plan is None for e in found.entries] == [True, True, True, False, False]
    assert all(e.reason and "more needed" in e.reason for e in found.entries[:3])
    assert plan(found, "unlimited l40s").predicted.request_rate == pytest.approx(200)
    assert found.winner == "" and "no fleet" in found.why


def test_names_of_fleets_mean_nothing_and_stay_apart(tmp_path: Path) -> None:
    union = offers(tmp_path, "gpu: l40s, count: 1", name="union")
    endless = offers(tmp_path, "gpu: h100-sxm, count: 1", name="unlimited h100-sxm")
    found = compare(asked(union, endless, endless, rate="1/s"))
    names = [e.fleet for e in found.entries if e.given]
    assert names == ["union (2)", "unlimited h100-sxm", "unlimited h100-sxm (2)"]
    assert found.winner == "union (2)"


def test_offers_on_equal_terms_add_up_and_others_are_named_by_what_differs() -> None:
    same = merged([Offer("x", "x", 1.0, 2), Offer("x", "x", 1.0, 3)])
    assert [(o.id, o.available) for o in same] == [("x", 5)]
    assert merged([Offer("x", "x", 1.0, 2), Offer("x", "x", 1.0, None)])[0].available is None
    other = merged([Offer("x", "x", 1.0, 2, 8), Offer("x", "x", 1.0, 3, 4), Offer("y", "y", 9.0, 1)])
    assert [o.id for o in other] == ["x in nodes of 8", "x in nodes of 4", "y"]


def test_pods_are_compared_beside_aggregated_replicas() -> None:
    words = {"isl": "4000", "osl": "400"}
    whole = compare(asked("h100-sxm:4", "h20:4", **words))
    found = compare(asked("h100-sxm:4", "h20:4", modes="aggregated,pd", **words))
    for name in ("h100-sxm:4", "h20:4", "union"):
        assert plan(found, name).predicted.request_rate >= plan(whole, name).predicted.request_rate * (1 - 1e-5)
    best = plan(found, "union")
    assert {"prefill", "decode"} <= {p.role for p in best.pools} and best.mode in ("pd", "mixed")
    assert sum(p.replicas * p.layout.tp * p.layout.pp for p in best.pools) == best.gpus_total
    # The limits hold for the mixture, pods included.
    assert best.predicted.ttft_ms.p95 <= 1000 and best.predicted.tpot_ms.p95 <= 40
    assert "kinds of pods" in found.scope and "pods" not in whole.scope


def test_pods_carry_what_the_search_of_splits_finds() -> None:
    words = {"isl": "4000", "osl": "400", "modes": "pd"}
    found = compare(asked("h100-sxm:5", **words)).entries[0].plan
    searched = search(
        parse_job(model="llama-3.1-8b", fleet="h100-sxm:5", ttft="1s", tpot="40ms", weights="bf16", kv="bf16",
                  simulate_top=0, **words)
    ).plans[0]  # fmt: skip
    assert found is not None and found.predicted.request_rate >= 0.98 * searched.predicted.request_rate


def test_an_unknown_price_never_decides() -> None:
    with pytest.raises(InputError, match="no price is known of mi325x"):
        compare(asked("mi325x:4", "h100-sxm:4", rate="10/s"))
    with pytest.raises(InputError, match="no price is known of mi325x"):
        compare(asked("mi325x:4", budget="9usd/h"))
    counted = compare(asked("mi325x:4", rate="10/s"))
    assert plan(counted, "mi325x:4").cost_usd_per_hour is None and counted.warnings
    assert plan(counted, "mi325x:4").certificate.objective == "gpus"
    fewest = compare(asked("mi325x:4", "h100-sxm:4", rate="10/s", objective="gpus"))
    assert fewest.winner and "no better" in fewest.why  # one GPU of either type does
    free = compare(asked("mi325x:4,h100-sxm:1"))
    assert plan(free, "mi325x:4,h100-sxm:1").cost_usd_per_hour is None


@pytest.mark.parametrize("objective", ["cost", "gpus", "energy"])
def test_every_objective_has_its_own_best(objective: str) -> None:
    def value(found: Plan, by: str) -> float:
        watts = {"h100-sxm": 700.0, "l40s": 350.0}
        return {"cost": found.cost_usd_per_hour or 0.0, "gpus": float(found.gpus_total),
                "energy": sum(n * watts[g] for g, n in found.gpus.items())}[by]  # fmt: skip

    plans = {by: plan(compare(asked("h100-sxm:3,l40s:9", rate="25/s", objective=by)), "h100-sxm:3,l40s:9")
             for by in ("cost", "gpus", "energy")}  # fmt: skip
    assert all(value(plans[objective], objective) <= value(p, objective) * (1 + 1e-5) for p in plans.values())


def test_power_and_region_floors_hold(tmp_path: Path) -> None:
    both = offers(tmp_path, "gpu: h100-sxm, count: 4, region: eu, usd_per_gpu_hour: 9",
                  "gpu: h100-sxm, count: 4, region: us, usd_per_gpu_hour: 1", name="both")  # fmt: skip
    free, floored = (plan(compare(asked(both, rate="30/s", region_floor=f)), "both") for f in ((), ("eu=50%",)))
    assert free.cost_usd_per_hour is not None and floored.cost_usd_per_hour is not None
    assert floored.cost_usd_per_hour == free.cost_usd_per_hour + 9 - 1
    poor = plan(compare(asked("h100-sxm:4", power="1.5kW")), "h100-sxm:4")
    assert poor.gpus_total == 2


def test_a_fleet_outside_a_region_with_a_floor_cannot_win_however_cheap(tmp_path: Path) -> None:
    here = offers(tmp_path, "gpu: h100-sxm, count: 4, region: eu, usd_per_gpu_hour: 9", name="here")
    there = offers(tmp_path, "gpu: h100-sxm, count: 4, region: us, usd_per_gpu_hour: 1e-9", name="there")
    found = compare(asked(here, there, rate="10/s", region_floor=("eu=50%", "us=0%")))
    reasons = {entry.fleet: entry.reason for entry in found.entries}
    assert "no GPUs in region eu" in (reasons["there"] or "") and found.winner == "here"
    assert reasons["union"] is None and reasons["unlimited h100-sxm"] is None


def test_links_of_a_fleet_file_slow_down_what_crosses_them(tmp_path: Path) -> None:
    """Two single-GPU nodes: a replica over both, or a pod with its cache sent, depends on the network."""
    rates = []
    for nic in (10, 400):
        path = offers(tmp_path, f"gpu: h100-sxm, count: 4, nic_gbps: {nic}", name=f"nic{nic}")
        rates.append(plan(compare(asked(path, modes="pd", isl="8000", ttft="3s")), f"nic{nic}").predicted.request_rate)
    assert rates[0] < 0.9 * rates[1]
    both = [offers(tmp_path, f"gpu: h100-sxm, count: 4, nic_gbps: {nic}", name=f"b{nic}") for nic in (10, 400)]
    with pytest.raises(InputError, match="10 and with 400 Gbit/s"):
        compare(asked(*both))


def test_goodput_without_any_limit_asks_for_one(tmp_path: Path) -> None:
    endless = compare(asked(offers(tmp_path, "gpu: l40s, usd_per_gpu_hour: 1")))
    assert endless.winner == "" and "nothing limits what it gives" in (endless.entries[0].reason or "")


def test_a_fleet_without_a_layout_says_what_comes_nearest() -> None:
    small = compare(asked("l4:2", "h100-sxm:8", model="llama-3.1-70b", rate="1/s"))
    assert small.entries[0].plan is None and "misses tpot even when idle; nearest: l4 tp8" in (
        small.entries[0].reason or ""
    )
    slow = compare(asked("l4:2", ttft="1ms", rate="1/s"))
    assert "misses ttft" in (slow.entries[0].reason or "") and slow.winner == ""


def test_no_replica_misses_a_limit_at_the_load_it_is_given() -> None:
    """The cheapest mixture of all once held a pipeline whose TPOT rises when its load falls."""
    found = compare(asked("l40s:2,a100-sxm-80gb:6", rate="145.468/s", isl="500", osl="100", ttft="2s", tpot="60ms",
                          modes="aggregated,pd", weights=None, kv=None))  # fmt: skip
    best = plan(found, "l40s:2,a100-sxm-80gb:6")
    assert best.predicted.tpot_ms.p95 <= 60 and best.predicted.ttft_ms.p95 <= 2000


@pytest.mark.parametrize("lengths", [("500", "400"), ("2000", "100")])
def test_goodput_with_pods_equals_brute_force_over_the_menu(lengths: tuple[str, str]) -> None:
    """All ways to put replicas and pods on one L40S and seven H200, by dynamic programming over GPU counts."""
    request = asked("l40s:1,h200-sxm:7", model="llama-3.1-70b", isl=lengths[0], osl=lengths[1], ttft="2s", tpot="60ms",
                    modes="aggregated,pd", weights=None, kv=None)  # fmt: skip
    known = Catalogs()
    supplies = largest(known.fleet_offer(request.fleets[0]).supplies)
    engine, job = load_engine("vllm"), request.job
    menu = build_menu(known.model(job.model), engine, supplies, job, request.classes, None, job.modes)
    units = [(t.gpus.get("l40s", 0), t.gpus.get("h200-sxm", 0), t.capacity["all"]) for t in menu.templates]
    best: dict[tuple[int, int], float] = {}
    for x, y in itertools.product(range(2), range(8)):
        best[x, y] = max([0.0, *(best[x - i, y - j] + h for i, j, h in units if i <= x and j <= y)])
    assert plan(compare(request), "l40s:1,h200-sxm:7").predicted.request_rate == pytest.approx(best[1, 7], rel=1e-5)
