"""Pods of prefill and decode replicas: their capacity is the edge of the joint model, and smaller ones replace none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.api import Catalogs
from planner.job.job import Job
from planner.job.parse import parse_job
from planner.search.candidates import lengths_of
from planner.search.pods import Pod, Side, pod_capacities, pod_name, worthwhile_pods
from planner.search.ranking import Candidate, Outcome
from planner.search.search import families, search
from planner.search.split_metrics import roles_of
from planner.serving.engine import load_engine
from planner.serving.latency import slots_needed
from planner.serving.pd import open_split


def job(fleet: str) -> Job:
    return parse_job(
        model="llama-3.1-8b", fleet=fleet, isl="4000", osl="400", ttft="1s", tpot="30ms", weights="bf16", kv="bf16"
    )


def pods_of(asked: Job) -> list[Pod]:
    known = Catalogs()
    members = families(known.model(asked.model), load_engine("vllm"), known.supplies(asked.fleet), asked, Outcome())
    return worthwhile_pods(list(members), asked, [])


def keeps_limits(unit: Candidate, asked: Job, rate: float) -> bool:
    first, second = unit.pools
    row = (first.layout, second.layout, first.replicas, second.replicas)
    flow = open_split(*roles_of(first.replica, second.replica, [row]), np.array([rate]), lengths_of(asked.workload))
    p, slo = asked.slo.percentile, asked.slo
    assert slo.ttft is not None and slo.tpot is not None
    return bool(np.isfinite(flow.batch[0]) and flow.ttft(p)[0] <= slo.ttft and flow.tpot(p)[0] <= slo.tpot)


@pytest.mark.parametrize("fleet", ["h100-sxm:6", "h100-sxm:4,l40s:4"])
def test_a_pods_capacity_is_the_edge_of_what_keeps_the_limits(fleet: str) -> None:
    asked = job(fleet)
    units = list(pod_capacities(pods_of(asked), asked))
    assert units
    for unit in units:
        assert keeps_limits(unit, asked, unit.rate)
        assert not keeps_limits(unit, asked, unit.rate * 1.08)


def test_pods_may_stand_on_two_gpu_types_and_have_names_of_their_own() -> None:
    asked = job("h100-sxm:4,l40s:4")
    pods = pods_of(asked)
    assert any({p.prefill.supply.accelerator.id, p.decode.supply.accelerator.id} == {"h100-sxm", "l40s"} for p in pods)
    assert len({p.name for p in pods}) == len(pods)
    assert {pod_name(unit) for unit in pod_capacities(pods, asked)} <= {p.name for p in pods}


def test_no_pod_is_made_of_smaller_units() -> None:
    """On one GPU type: whatever carries as much on fewer GPUs, alone or in two parts, makes the larger one needless."""
    asked = job("h100-sxm:8")
    units = [(unit.gpus, unit.rate) for unit in pod_capacities(pods_of(asked), asked)]
    for gpus, rate in units:
        parts = [a + b for m, a in units for n, b in units if m + n <= gpus]
        assert rate > 0.99 * max(parts, default=0.0)


def test_pods_leave_room_for_the_fluctuation_of_their_batch_as_a_search_does() -> None:
    # Long contexts on small GPUs: memory binds, and a Poisson batch of 80 needs more than 90 slots at p95.
    asked = parse_job(
        model="llama-3.1-8b", fleet="l40s:8", isl="12000", osl="600", ttft="20s", weights="bf16", kv="bf16",
        modes="pd", simulate_top=0,
    )  # fmt: skip
    known = Catalogs()
    best = search(
        known.model(asked.model), load_engine("vllm"), list(known.supplies(asked.fleet)), asked
    ).ranked[0]  # fmt: skip
    first, second = (Side(known.supplies(asked.fleet)[0], p.replica, p.layout, p.replicas) for p in best.pools)
    (unit,) = pod_capacities([Pod(first, second)], asked)
    assert unit.per_replica.batch > 0.7 * unit.slots
    assert float(slots_needed(np.array(unit.per_replica.batch), "p95")) <= unit.slots
    assert unit.rate == pytest.approx(best.rate, rel=0.01)


def test_pods_keep_to_what_the_engine_can_move() -> None:
    """NixlConnector of vLLM refuses pipeline stages, so that a pod with them could not be deployed."""
    asked = parse_job(
        model="llama-3.1-70b", fleet="h100-sxm:10", isl="4000", osl="300", ttft="5s", tpot="60ms", rate="8/s"
    )
    known, staged = Catalogs(), {}
    for moves in (False, True):
        engine = replace(load_engine("vllm"), transfer_stages=moves)
        members = families(known.model(asked.model), engine, known.supplies(asked.fleet), asked, Outcome())
        pods = worthwhile_pods(list(members), asked, [])
        staged[moves] = any(side.layout.pp > 1 for pod in pods for side in (pod.prefill, pod.decode))
    assert staged == {False: False, True: True}
