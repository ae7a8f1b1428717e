"""Splits without a limit on the first token run their prefill pool close to its capacity: the re-check bears that."""

from __future__ import annotations

import pytest

from planner.api import search
from planner.job.job import Job
from planner.job.parse import parse_job
from planner.search import rate_matching


def unlimited(tpot: str | None) -> Job:
    return parse_job(model="llama-3.1-8b", fleet="h100-sxm:2", isl="1000", osl="200", modes="pd", tpot=tpot, top=2,
                     simulate_top=2)  # fmt: skip


@pytest.mark.parametrize("tpot", [None, "30ms"])
def test_background_that_is_preempted_in_the_decode_pool_is_not_handed_over_again(
    tpot: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a request that decoded from the start, computed again after a preemption, left a prefill pool that had
    never seen it."""
    monkeypatch.setattr(rate_matching, "MOST_PREFILL_LOAD", 1.0)
    plans = search(unlimited(tpot)).plans
    assert plans and all(plan.simulated is not None for plan in plans)


def test_a_prefill_pool_without_limits_keeps_a_queue_that_ends() -> None:
    best = search(unlimited(None)).plans[0]
    assert best.simulated is not None
    for found in (best.predicted, best.simulated):
        assert 0 < found.ttft_ms.mean < 5_000
