"""Splits without a limit on the first token run their prefill pool to its capacity: the re-check bears that."""

from __future__ import annotations

import pytest

from planner.api import search
from planner.job.parse import parse_job


@pytest.mark.parametrize("tpot", [None, "30ms"])
def test_background_that_is_preempted_in_the_decode_pool_is_not_handed_over_again(tpot: str | None) -> None:
    """Once a request that decoded from the start, computed again after a preemption, left a prefill pool that had
    never seen it."""
    job = parse_job(model="llama-3.1-8b", fleet="h100-sxm:2", isl="1000", osl="200", modes="pd", tpot=tpot, top=2,
                    simulate_top=2)  # fmt: skip
    plans = search(job).plans
    assert plans and all(plan.simulated is not None for plan in plans)
