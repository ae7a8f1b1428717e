"""Replicas that miss a limit at the load they get: taken out, named, and absent from the marginal values."""

from __future__ import annotations

import pytest
from test_comparison import asked

from planner.api import compare
from planner.comparison.solver import Solver
from planner.job.slo import Slo
from planner.report.comparison import record
from planner.search.ranking import Candidate

QUESTION = {"rate": "12/s", "ttft": "2s", "tpot": "60ms"}


def pairs_are_late(self: Solver, candidate: Candidate, slo: Slo) -> bool:
    return candidate.layout.tp == 2


def test_what_is_taken_out_is_named_with_what_it_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    (free, *_) = compare(asked("l40s:8,a100-sxm-80gb:4", **QUESTION)).entries
    assert free.plan is not None and not free.left_out and free.plan.certificate.status == "optimal"
    late = free.plan.pools[0].gpu

    def missing(self: Solver, candidate: Candidate, slo: Slo) -> bool:
        return candidate.replica.accelerator.id == late

    monkeypatch.setattr(Solver, "_misses", missing)
    found = compare(asked("l40s:8,a100-sxm-80gb:4", **QUESTION))
    (entry, *_) = found.entries
    assert entry.plan is not None and free.plan.cost_usd_per_hour is not None
    assert all(pool.gpu != late for pool in entry.plan.pools)
    assert entry.plan.cost_usd_per_hour is not None
    assert entry.plan.cost_usd_per_hour >= free.plan.cost_usd_per_hour
    (note,) = [n for n in entry.plan.notes if "left out" in n]
    assert all(name in note for name in entry.left_out) and entry.left_out
    share = 1 - free.plan.cost_usd_per_hour / entry.plan.cost_usd_per_hour
    assert f"at most {share:.2%} less" in note
    assert record(found)["fleets"][0]["left_out"] == list(entry.left_out)


def test_marginal_values_take_no_replica_that_the_plan_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    question = asked("l4:5", rate="1/s", ttft="5s", tpot="80ms")
    free = compare(question)
    monkeypatch.setattr(Solver, "_misses", pairs_are_late)
    held = compare(question)
    (entry, *_) = held.entries
    assert entry.plan is not None and [pool.layout.tp for pool in entry.plan.pools] == [4]
    # A sixth GPU completes a third pair; without pairs it only makes one unit wider.
    assert held.marginal[0].output_rate < free.marginal[0].output_rate / 4


def test_a_fleet_that_loses_its_last_unit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Solver, "_misses", pairs_are_late)
    (entry, *_) = compare(asked("l4:3", rate="1/s", ttft="5s", tpot="80ms")).entries
    assert entry.plan is None and entry.reason is not None
    assert "left out, because they miss a limit at their load: l4 tp2" in entry.reason
