"""The search against plain loops over every layout and batch, and what every ranked plan must keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planner_cases import gpu, job, one, replica, supply

from planner.architecture.catalog import load_model
from planner.catalog.hardware import Accelerator
from planner.job.job import Job
from planner.planned import objective_value
from planner.search.candidates import lengths_of
from planner.search.ranking import Candidate, Outcome, pareto
from planner.search.search import Supply, search
from planner.serving.aggregated import open_loop
from planner.serving.closed_loop import closed_loop
from planner.serving.engine import load_engine
from planner.serving.latency import e2e, open_loop_tpot, open_loop_ttft, z_score
from planner.serving.layout import Layout
from planner.serving.legality import shape_problem
from planner.serving.memory import memory
from planner.serving.replica import Replica

DENSE, ROUTED = "llama-3.1-8b", "qwen/qwen3-30b-a3b"
VLLM = load_engine("vllm")


def found(name: str, supplies: list[Supply], asked: Job) -> Outcome:
    return search(load_model(name), VLLM, supplies, asked)


def every_layout(kind: Replica, gpus: int) -> Iterator[Layout]:
    """All splits of up to ``gpus`` GPUs, by nested loops and no cleverness."""
    widths = range(1, gpus + 1)
    for tp, data, pp in product(widths, widths, widths):
        if tp * data * pp > gpus or (data > 1 and not kind.has_experts) or data not in (1, 2, 4, 8):
            continue
        for ep in {1, tp * data} if kind.has_experts else {1}:
            layout = Layout(tp, data, pp, ep)
            if shape_problem(kind.model, layout) is None:
                yield layout


def batches(slots: float) -> np.ndarray:
    """Every integer batch, and steps in between where one more request is over 1 %."""
    return np.concatenate([np.arange(0.05, 8, 0.05), np.arange(8, 128, 0.25), np.arange(128, max(slots, 128) + 1)])


def points(kind: Replica, layout: Layout, asked: Job) -> Iterator[tuple[float, float, float]]:
    """(rate of a replica, batch, end-to-end) of every batch of a layout that keeps the SLO, one layout at a time."""
    columns, lengths = one(*layout), lengths_of(asked.workload)
    budget = memory(kind, columns, lengths)
    statistic, limits = asked.slo.percentile, asked.slo.limits
    if not budget.fits[0]:
        return
    point = open_loop(kind, columns, (b := batches(float(budget.slots[0]))), lengths)
    ttft = open_loop_ttft(point, kind.engine, statistic)
    tpot = open_loop_tpot(point, lengths.osl, statistic)
    for i, batch in enumerate(b):
        seen = {"ttft": ttft[i], "tpot": tpot[i], "e2e": e2e(ttft[i], tpot[i], lengths.osl)}
        needed = np.ceil(batch + z_score(statistic) * np.sqrt(batch))
        if needed <= budget.slots[0] and point.prefill_load[i] < 0.98 and all(seen[m] <= limits[m] for m in limits):
            yield float(point.rate[i]), float(batch), float(seen["e2e"])


CASES = [
    ("llama-3.1-8b", "h100-sxm", 4, {"tpot": 0.02, "ttft": 0.5}),
    ("llama-3.1-8b", "l40s", 4, {"tpot": 0.05, "isl": 3000, "osl": 100}),
    ("llama-3.1-8b", "a100-sxm-80gb", 3, {"e2e": 4.0, "percentile": "p99"}),
    ("qwen/qwen3-30b-a3b", "h100-sxm", 4, {"tpot": 0.03, "ttft": 2.0}),
    ("qwen/qwen3-30b-a3b", "mi300x", 2, {"tpot": 0.04, "percentile": "mean", "isl": 200, "osl": 1000}),
    ("llama-3.1-70b", "h100-sxm", 8, {"tpot": 0.05, "ttft": 1.0, "isl": 4000, "osl": 1000}),
]


@pytest.mark.parametrize(("name", "device", "gpus", "request_"), CASES)
def test_goodput_is_the_best_of_every_layout_and_batch(name: str, device: str, gpus: int, request_: dict) -> None:
    asked = job(**request_, weights=("bf16",), kv=("bf16",))
    kind = replica(name, device)
    best = max(
        rate * (gpus // layout.gpus)
        for layout in every_layout(kind, gpus)
        for rate, _, _ in points(kind, layout, asked)
    )
    outcome = found(name, [supply(device, gpus)], asked)
    assert outcome.ranked[0].rate == pytest.approx(best, rel=0.01)  # the grid's own step is below 1 %


@pytest.mark.parametrize(("name", "device", "gpus", "request_"), CASES)
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_plan_for_a_rate_uses_the_fewest_gpus_that_carry_it(
    name: str, device: str, gpus: int, request_: dict, share: float
) -> None:
    free = job(**request_, weights=("bf16",), kv=("bf16",))
    kind = replica(name, device)
    capacity = {
        layout: max((rate for rate, _, _ in points(kind, layout, free)), default=0.0)
        for layout in every_layout(kind, gpus)
    }
    most = max(rate * (gpus // layout.gpus) for layout, rate in capacity.items())
    asked = job(**request_, weights=("bf16",), kv=("bf16",), rate=share * most)
    fewest = min(
        int(np.ceil(share * most / rate)) * layout.gpus
        for layout, rate in capacity.items()
        if rate > 0 and share * most / rate <= gpus // layout.gpus
    )
    for objective in ("cost", "gpus"):
        outcome = found(name, [supply(device, gpus)], asked.model_copy(update={"objective": objective}))
        assert outcome.ranked[0].gpus == fewest
        assert outcome.ranked[0].rate == pytest.approx(share * most)


def test_the_fastest_plan_for_a_rate_has_the_lowest_end_to_end_time_of_all() -> None:
    kind, gpus, rate = replica(DENSE), 4, 6.0
    asked = job(rate=rate, weights=("bf16",), kv=("bf16",), objective="latency")
    best = np.inf
    for layout in every_layout(kind, gpus):
        for replicas in range(1, gpus // layout.gpus + 1):
            carrying = [total for r, _, total in points(kind, layout, asked) if r >= rate / replicas]
            best = min(best, *carrying, np.inf)
    outcome = found(DENSE, [supply("h100-sxm", gpus)], asked)
    assert outcome.ranked[0].per_replica.e2e["p95"] == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(("name", "concurrency"), [(DENSE, 24), (ROUTED, 64), (ROUTED, 1)])
@pytest.mark.parametrize("objective", ["throughput", "latency", "cost"])
def test_a_closed_loop_is_ranked_as_every_layout_and_replica_count_alone(
    name: str, concurrency: int, objective: str
) -> None:
    gpus, kind = 4, replica(name)
    asked = job(concurrency=concurrency, tpot=0.05, weights=("bf16",), kv=("bf16",), objective=objective)
    lengths, values = lengths_of(asked.workload), []
    for layout in every_layout(kind, gpus):
        for replicas in range(1, gpus // layout.gpus + 1):
            share = np.array([concurrency / (replicas * layout.attention_dp)])
            point = closed_loop(kind, one(*layout), share, lengths)
            if not point.memory.fits[0] or point.tpot("p95")[0] > 0.05:
                continue
            slow = point.ttft("p95")[0] + (lengths.osl - 1) * point.tpot("p95")[0]
            values.append(
                {"throughput": -point.rate[0] * replicas, "latency": slow, "cost": 2.0 * replicas * layout.gpus}[
                    objective
                ]
            )
    best = found(name, [supply("h100-sxm", gpus)], asked).ranked[0]
    seen = {"throughput": -best.rate, "latency": best.per_replica.e2e["p95"], "cost": best.cost}[objective]
    assert seen == pytest.approx(min(values), rel=0.01)


def keeps(c: Candidate, asked: Job) -> None:
    """Re-check one ranked plan outside the search: shape, memory, slots, SLO."""
    kind, layout, lengths = c.replica, c.layout, lengths_of(asked.workload)
    assert shape_problem(kind.model, layout) is None
    held = memory(kind, one(*layout), lengths)
    running = c.per_replica.batch
    used = float(held.weights[0] + held.activations[0] + held.request[0] * running)
    share = max(kind.engine.utilization, kind.engine.utilization_ceiling)
    assert used + kind.engine.reserve <= kind.accelerator.memory * share
    assert float(held.weights[0] + held.activations[0] + held.longest[0]) <= kind.accelerator.memory
    assert running <= float(held.slots[0]) + 1e-9
    if asked.workload.concurrency is None and asked.workload.rate is None and asked.objective in (None, "throughput"):
        # a Poisson number of requests is present; the one at the percentile must find a free slot too
        assert running + z_score(asked.slo.percentile) * np.sqrt(running) <= float(held.slots[0]) + 1e-9
    for metric, limit in asked.slo.limits.items():
        assert getattr(c.per_replica, metric)[asked.slo.percentile] <= limit * (1 + 1e-9), (metric, c.layout)
    assert c.gpus + c.idle >= c.gpus > 0 and c.idle >= 0


@settings(max_examples=40)
@given(
    name=st.sampled_from([DENSE, ROUTED, "llama-3.1-70b", "google/gemma-3-27b-it", "deepseek-ai/deepseek-v2-lite"]),
    device=st.sampled_from(["h100-sxm", "l40s", "mi300x", "a100-sxm-40gb", "b200-sxm"]),
    gpus=st.integers(1, 16), isl=st.integers(10, 20_000), osl=st.integers(1, 4000),
    ttft=st.none() | st.floats(0.1, 5), tpot=st.none() | st.floats(0.01, 0.2), e2e_=st.none() | st.floats(1, 60),
    load=st.sampled_from([{}, {"rate": 0.5}, {"rate": 20.0}, {"concurrency": 3}, {"concurrency": 500}]),
    percentile=st.sampled_from(["mean", "p50", "p90", "p95", "p99"]),
    objective=st.sampled_from([None, "throughput", "cost", "latency", "gpus", "energy"]),
)  # fmt: skip
@example("llama-3.1-70b", "h100-sxm", 2, 4000, 1000, None, None, None, {}, "p95", None)
@example("qwen/qwen3-30b-a3b", "l40s", 5, 326, 1, None, 0.125, None, {"rate": 20.0}, "mean", None)
def test_every_ranked_plan_fits_and_keeps_the_slo_and_the_order(
    name: str, device: str, gpus: int, isl: int, osl: int, ttft: float | None, tpot: float | None,
    e2e_: float | None, load: dict, percentile: str, objective: str | None,
) -> None:  # fmt: skip
    asked = job(isl, osl, ttft=ttft, tpot=tpot, e2e=e2e_, percentile=percentile, objective=objective, **load)
    outcome = found(name, [supply(device, gpus)], asked)
    for c in outcome.ranked:
        keeps(c, asked)
        assert c.gpus + c.idle == gpus
        if "rate" in load:
            assert c.rate == load["rate"]
    assert outcome.ranked or outcome.rejections.counts  # nothing is dropped without a reason
    values = [objective_value(c, outcome.objective, percentile) for c in outcome.ranked]
    if outcome.objective == "throughput":
        values = [-value for value in values]
    # 1e-6: keys are rounded before they are compared, so that last bits do not decide
    assert all(a <= b + 1e-6 * abs(b) for a, b in pairwise(values))


def test_the_fewest_gpus_without_a_load_are_those_of_the_smallest_replica() -> None:
    for name, fewest in ((DENSE, 1), ("llama-3.1-70b", 2)):  # 15 and 131 GiB of weights, 80 GiB per GPU
        best = found(name, [supply("h100-sxm", 13)], job(weights=("bf16",), objective="gpus")).ranked[0]
        assert (best.gpus, best.idle) == (fewest, 13 - fewest)


def test_llama_405b_in_bf16_on_two_nodes_runs_as_tp_8_by_pp_2() -> None:
    outcome = found("meta-llama/Llama-3.1-405B", [supply("h100-sxm", 16)], job(4000, 1000, weights=("bf16",)))
    assert outcome.ranked[0].layout == Layout(8, 1, 2)  # 756 GiB of weights need 16 GPUs; heads divide by 8
    assert found("meta-llama/Llama-3.1-405B", [supply("h100-sxm", 8)], job(weights=("bf16",))).ranked == []


@pytest.mark.parametrize("gpus", [7, 13])
@pytest.mark.parametrize("name", [DENSE, "llama-3.1-70b"])
def test_odd_fleets_use_what_they_can_and_say_what_idles(name: str, gpus: int) -> None:
    outcome = found(name, [supply("h100-sxm", gpus)], job(tpot=0.05))
    assert outcome.ranked
    assert all(c.gpus + c.idle == gpus for c in outcome.ranked)
    best = outcome.ranked[0]
    # no further replica of the same layout would fit into what is left over
    assert best.idle < best.layout.gpus
    if name == DENSE:
        assert best.idle == 0 or best.layout.gpus > 1


def test_plans_that_cannot_be_are_counted_with_the_nearest_miss() -> None:
    outcome = found("meta-llama/Llama-3.1-405B", [supply("h100-sxm", 8)], job(weights=("bf16",)))
    assert outcome.ranked == []
    rows = {reason: (count, nearest) for reason, count, nearest in outcome.rejections.rows()}
    assert "does not fit in memory" in rows
    assert "tp8" in rows["does not fit in memory"][1]  # the layout with the least per GPU comes nearest
    late = found(DENSE, [supply("h100-sxm", 1)], job(tpot=1e-4))
    assert late.ranked == []
    assert list(late.rejections.counts) == ["misses tpot even when idle"]


def test_gpus_of_unknown_price_come_after_those_with_one_by_cost() -> None:
    both = [supply("h100-sxm", 2, price=None), supply("a100-sxm-80gb", 2, price=9.0)]
    ranked = found(DENSE, both, job(rate=1.0)).ranked
    priced = [c.cost is not None for c in ranked]
    assert priced == sorted(priced, reverse=True) and {True, False} == set(priced)


def test_the_budget_bounds_the_gpus() -> None:
    outcome = found(DENSE, [supply("h100-sxm", 16, price=2.0)], job(tpot=0.05, budget=7.0))
    assert max(c.gpus for c in outcome.ranked) == 3  # 7 USD/h at 2 USD/h each
    assert all(c.cost is not None and c.cost <= 7.0 for c in outcome.ranked)


def test_the_order_of_the_fleet_and_of_precisions_changes_nothing() -> None:
    supplies = [supply("l40s", 4), supply("h100-sxm", 3), supply("mi300x", 2)]
    results = []
    for order, weights in zip(permutations(supplies), permutations(("bf16", "fp8", "int4")), strict=True):
        outcome = found(ROUTED, list(order), job(tpot=0.05, weights=weights))
        results.append([(c.name, c.rate, c.per_replica) for c in outcome.ranked])
        assert outcome.rejections.rows() == found(ROUTED, supplies, job(tpot=0.05, weights=weights)).rejections.rows()
    assert all(result == results[0] for result in results)


def test_the_frontier_holds_the_plans_that_no_other_beats_twice() -> None:
    ranked = found(ROUTED, [supply("h100-sxm", 8), supply("l40s", 8)], job(tpot=0.08)).ranked

    def gain(c: Candidate) -> tuple[float, float]:
        return c.output_rate / c.gpus, 1 / c.per_replica.tpot["p95"]

    front = pareto(ranked, "p95")
    assert 1 <= len(front) < len(ranked)
    for c in ranked:
        beaten = any(a >= gain(c)[0] and b >= gain(c)[1] and (a, b) != gain(c) for a, b in map(gain, ranked))
        assert not beaten or c not in front
        assert any(a >= gain(c)[0] and b >= gain(c)[1] for a, b in map(gain, front))


def improvements(here: Accelerator, more: float) -> dict[str, Accelerator]:
    """Return the same GPU with ``more`` times of one thing."""
    link = here.scale_up
    wider = replace(link, bandwidth=link.bandwidth * more, pair_bandwidth=link.pair_bandwidth * more)
    return {
        "memory bandwidth": replace(here, memory_bandwidth=here.memory_bandwidth * more),
        "FLOP/s": replace(here, flops={k: v * more for k, v in here.flops.items()}),
        "memory": replace(here, memory=here.memory * more),
        "scale-up": replace(here, scale_up=wider),
        "network": replace(here, network_bandwidth=here.network_bandwidth * more),
    }


def best_goodput(name: str, device: Accelerator, gpus: int, asked: Job) -> float:
    ranked = found(name, [supply(device, gpus)], asked).ranked
    return ranked[0].rate if ranked else 0.0


@settings(max_examples=40)
@given(
    name=st.sampled_from([DENSE, ROUTED, "llama-3.1-70b"]),
    device=st.sampled_from(["h100-sxm", "l40s", "a100-sxm-80gb"]),
    gpus=st.integers(1, 8),
    what=st.sampled_from(["memory bandwidth", "FLOP/s", "memory", "scale-up", "network"]),
    more=st.floats(1.01, 3),
    isl=st.integers(10, 8000),
    osl=st.integers(32, 4000),
    tpot=st.none() | st.floats(0.01, 0.1),
    concurrency=st.none() | st.integers(1, 200),
)
def test_better_hardware_never_lowers_the_best_goodput(
    name: str,
    device: str,
    gpus: int,
    what: str,
    more: float,
    isl: int,
    osl: int,
    tpot: float | None,
    concurrency: int | None,
) -> None:
    asked = job(isl, osl, tpot=tpot, concurrency=concurrency, weights=("bf16",), objective="throughput")
    here = gpu(device)
    plain = best_goodput(name, here, gpus, asked)
    # 0.6 %: the step of the grid of batches on which the best is looked for
    assert best_goodput(name, improvements(here, more)[what], gpus, asked) >= plain * 0.994
