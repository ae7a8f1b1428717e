"""Profiles of ``planner allocate``: what is accepted, and one line for what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.job.allocation import parse_allocation, read_allocation


def profile(**changes: Any) -> dict[str, Any]:
    """A profile of two machine types and two classes."""
    data: dict[str, Any] = {
        "offers": [
            {"name": "A100", "cost_usd_per_hour": 3.67, "available": 8},
            {"name": "L4", "cost_usd_per_hour": 0.7},
        ],
        "classes": [{"name": "w0", "rate": 2.0}, {"name": "w1", "rate": 1.0}],
        "capacity": {"A100": {"w0": 5.0, "w1": 4.0}, "L4": {"w0": 1.0}},
        "headroom": 0.9,
        "split": {"slices": 8},
    }
    data.update(changes)
    return data


def test_a_profile_is_read(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(profile()))
    problem = read_allocation(file)
    assert problem.slices == 8 and problem.headroom == 0.9
    assert problem.offers[1].available is None
    assert parse_allocation(profile(split="fractional")).slices is None


def test_a_melange_configuration_is_accepted_as_it_is() -> None:
    problem = parse_allocation(
        {
            "gpu_info": {"A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]}},
            "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
            "total_request_rate": 30.0,
            "slice_factor": 4,
        }
    )
    assert [c.name for c in problem.classes] == ["0,0", "0,1", "1,0", "1,1"]
    # 0.1 * 30 in binary is not 3; the decimals that the user wrote are multiplied
    assert [c.rate for c in problem.classes] == [6.0, 3.0, 15.0, 6.0]
    assert problem.capacity["A10G"]["1,0"] == 5 and problem.slices == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"offers": []}, "offers"),
        ({"classes": []}, "classes"),
        ({"headroom": 0}, "headroom"),
        ({"headroom": 1.5}, "headroom"),
        ({"headroom": "high"}, "headroom"),
        ({"split": "sliced"}, "split"),
        ({"split": {"slices": 0}}, "slices"),
        ({"split": {"slices": 2.5}}, "slices"),
        ({"classes": [{"name": "w0", "rate": -1}]}, "rate"),
        ({"classes": [{"name": "w0", "rate": float("nan")}]}, "rate"),
        ({"classes": [{"name": "w0", "rate": True}]}, "rate"),
        ({"classes": [{"name": "w0", "rate": 1}, {"name": "w0", "rate": 2}]}, "given twice"),
        ({"capacity": {"H100": {"w0": 1.0}}}, "H100"),
        ({"capacity": {"A100": {"w9": 1.0}}}, "w9"),
        ({"capacity": {"A100": {"w0": float("inf")}}}, "capacity"),
        ({"offers": [{"name": "A100", "cost_usd_per_hour": "3.67"}]}, "cost_usd_per_hour"),
        ({"offers": [{"name": "A100", "cost_usd_per_hour": 1, "available": 1.5}]}, "available"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_fields_are_named_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_allocation(profile(**changes))
    assert "\n" not in str(caught.value)


def test_melange_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"A10G\.tputs"):
        parse_allocation(
            {
                "gpu_info": {"A10G": {"cost": 1.01, "tputs": [[2, 1]]}},
                "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
                "total_request_rate": 30.0,
            }
        )


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"offers": 1}', "\x00", "[" * 100_000])
def test_files_that_are_no_profile_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(InputError):
        read_allocation(file)
    with pytest.raises(InputError):
        read_allocation(tmp_path / "absent.json")
    with pytest.raises(InputError):
        read_allocation(tmp_path)
