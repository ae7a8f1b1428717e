"""The exact mixture for measured capacities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.job.allocation import AllocationProblem, parse_allocation
from planner.search.allocate import allocate
from planner.search.mixture import SolveOptions

CASES = Path(__file__).resolve().parents[3] / "shared" / "peers" / "melange_cases.json"


def melange_cases() -> list[dict[str, Any]]:
    """Worked cases with known optima, where they are at hand."""
    return json.loads(CASES.read_text())["cases"] if CASES.exists() else []


def one(rate: float, capacity: float, **changes: Any) -> AllocationProblem:
    """One class on machine type a, or on b at twice the speed for 2.5 times the price."""
    data: dict[str, Any] = {
        "offers": [{"name": "a", "cost_usd_per_hour": 1.0}, {"name": "b", "cost_usd_per_hour": 2.5}],
        "classes": [{"name": "w", "rate": rate}],
        "capacity": {"a": {"w": capacity}, "b": {"w": 2 * capacity}},
    }
    return parse_allocation(data | changes)


@pytest.mark.skipif(not CASES.exists(), reason="reference cases are not at hand")
@pytest.mark.parametrize("solver", ["auto", "pulp-cbc"])
def test_melange_cases_reach_their_known_optima(solver: str) -> None:
    for case in melange_cases():
        sliced = parse_allocation(case["input"])
        fractional = sliced.model_copy(update={"split": "fractional"})
        for problem, key in ((sliced, "exact_sliced_optimum"), (fractional, "exact_fractional_optimum")):
            result = allocate(problem, SolveOptions(solver))
            assert result.status == "optimal"
            assert result.cost == pytest.approx(case[key]["cost"], abs=1e-12)
        for name, single in case["single_gpu_type_baselines"].items():
            found = allocate(sliced).single_type[name]
            assert found is not None and (found.count, found.cost) == (
                single["count"],
                pytest.approx(single["cost"]),
            )


def test_the_published_example_costs_4_68_and_fills_its_machines_to_the_last_digit() -> None:
    """One A10G and one A100 for Mélange's own example, which its slices put at 6.70 and 5.69: zero slack."""
    problem = parse_allocation(
        {
            "gpu_info": {
                "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
                "A100": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
            },
            "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
            "total_request_rate": 30.0,
            "slice_factor": 1,
        }
    ).model_copy(update={"split": "fractional"})
    answer = allocate(problem).as_dict()
    assert answer["status"] == "optimal" and answer["gap"] == 0.0
    assert answer["cost_usd_per_hour"] == answer["bound"] == 4.68
    assert answer["counts"] == {"A10G": 1, "A100": 1}
    for request in problem.classes:
        assert sum(answer["assignment"][request.name].values()) == pytest.approx(request.rate, rel=1e-12)
    assert answer["single_type"]["A100"] == {"count": 2, "cost_usd_per_hour": 7.34}
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("rate", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("capacity", [1e-9, 1.0, 1e9])
def test_magnitudes_do_not_matter(rate: float, capacity: float) -> None:
    expected = max(1, round(rate / capacity))
    assert allocate(one(rate, capacity)).counts == {"a": expected, "b": 0}


def test_a_rate_of_zero_costs_nothing_and_a_free_machine_is_no_division_by_zero() -> None:
    nothing = allocate(one(0.0, 1.0))
    assert (nothing.status, nothing.cost, nothing.certificate.gap) == ("optimal", 0.0, 0.0)
    free = [{"name": "a", "cost_usd_per_hour": 0.0}, {"name": "b", "cost_usd_per_hour": 0.0}]
    assert allocate(one(3.0, 1.0, offers=free)).cost == 0.0


def test_zero_capacity_and_too_few_machines_are_infeasible_with_reasons() -> None:
    cannot = allocate(one(1.0, 0.0))
    assert cannot.status == "infeasible" and "w" in cannot.reasons[0]
    assert cannot.single_type == {"a": None, "b": None}
    few = [
        {"name": "a", "cost_usd_per_hour": 1.0, "available": 1},
        {"name": "b", "cost_usd_per_hour": 2.5, "available": 1},
    ]
    short = allocate(one(10.0, 1.0, offers=few))
    assert short.status == "infeasible" and short.counts == {} and short.cost is None
    assert any("available" in reason for reason in short.reasons)
    assert any("70.000%" in reason for reason in short.reasons)
    none = [
        {"name": "a", "cost_usd_per_hour": 1.0, "available": 0},
        {"name": "b", "cost_usd_per_hour": 2.5, "available": 0},
    ]
    assert allocate(one(1.0, 1.0, offers=none)).status == "infeasible"


def test_headroom_leaves_room_on_every_machine() -> None:
    assert allocate(one(3.0, 1.0, headroom=0.5)).counts == {"a": 6, "b": 0}
