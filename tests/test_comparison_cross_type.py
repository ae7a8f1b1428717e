"""``planner compare --cross-type-pipelines``: stages on unlike GPUs where neither type serves the model alone."""

from __future__ import annotations

import pytest
from test_comparison import asked

from planner.api import Catalogs, compare, replica_of_pool
from planner.errors import InputError
from planner.report.comparison import record
from planner.report.plans import pool_text

QUESTION = {"model": "qwen2.5-14b", "tpot": "300ms", "ttft": "8s", "isl": "500"}


def test_a_model_too_large_for_either_fleet_runs_on_both_together() -> None:
    fleets = ("l4:1", "rtx-3090:1")
    closed = compare(asked(*fleets, **QUESTION))
    assert all(entry.plan is None for entry in closed.entries[:3])
    found = compare(asked(*fleets, cross_type=True, **QUESTION))
    union = found.entries[2]
    assert found.winner == "union" and union.plan is not None
    (pool,) = union.plan.pools
    assert {stage.gpu for stage in pool.stages} == {"l4", "rtx-3090"} == set(pool.gpu.split("+"))
    assert (pool.stages[0].first, pool.stages[-1].end) == (0, 48)
    assert all(f"{s.first}-{s.end - 1} {s.gpu}" in pool_text(pool) for s in pool.stages)
    assert "over two GPU types" in found.scope
    assert record(found)["fleets"][2]["plan"]["pools"][0]["stages"][0]["first"] == 0
    with pytest.raises(InputError, match="neither replayed"):
        replica_of_pool("qwen2.5-14b", pool, Catalogs())


def test_pipelines_over_types_need_the_aggregated_mode() -> None:
    with pytest.raises(InputError, match="aggregated replicas"):
        asked("l4:1", cross_type=True, modes="pd")
