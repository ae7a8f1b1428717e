from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from planner.errors import InputError
from planner.job.fleet import MAX_GPUS, parse_fleet
from planner.job.job import Job
from planner.job.parse import parse_job
from planner.job.workload import Workload


def asked(**changes: Any) -> Job:
    return parse_job(**{"model": "m", "fleet": "h100-sxm:16", "isl": "4k", "osl": "1000", **changes})


def test_words_become_si_numbers() -> None:
    job = asked(ttft="500ms", tpot="30ms", rate="600/min", prefix_hit="25%", budget="40usd/h", weights="FP8, bf16")
    assert job.slo.limits == {"ttft": 0.5, "tpot": 0.03}
    assert job.workload.rate == pytest.approx(10.0)
    assert job.workload.new_tokens == 3000  # a quarter of 4,000 lies in the prefix cache
    assert job.budget == 40.0
    assert job.weights == ("fp8", "bf16")
    assert job.slo.percentile == "p95"  # the contract's default


def test_a_fleet_names_types_and_counts_and_adds_up_repeats() -> None:
    fleet = parse_fleet("h100-sxm:8, l40s:4,h100-sxm:8")
    assert dict(fleet.gpus) == {"h100-sxm": 16, "l40s": 4}
    assert (fleet.total, str(fleet)) == (20, "h100-sxm:16,l40s:4")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "h100-sxm",
        "h100-sxm:",
        ":8",
        "h100-sxm:0",
        "h100-sxm:-1",
        "h100-sxm:1.5",
        "h100-sxm:nan",
        "h100-sxm:8,",
        "h100-sxm:8,,l40s:4",
        f"h100-sxm:{MAX_GPUS + 1}",
        "h100-sxm:" + "9" * 5000,
    ],
)
def test_an_empty_or_malformed_fleet_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_fleet(text)
    assert str(refused.value).startswith("--fleet")
    assert len(str(refused.value)) <= 400


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"isl": None}, "--isl"),
        ({"isl": "0"}, "--isl"),
        ({"osl": "-3"}, "--osl"),
        ({"isl": "1e9"}, "--isl"),
        ({"ttft": "500"}, "--ttft"),
        ({"tpot": "0ms"}, "--tpot"),
        ({"rate": "nan/s"}, "--rate"),
        ({"concurrency": 0.0}, "--concurrency"),
        ({"concurrency": math.nan}, "--concurrency"),
        ({"concurrency": math.inf}, "--concurrency"),
        ({"prefix_hit": "1"}, "--prefix-hit"),
        ({"budget": "40"}, "--budget"),
        ({"percentile": "p42"}, "percentile"),
        ({"objective": "cheapest"}, "objective"),
        ({"modes": "pdd"}, "mode"),
        ({"rate": "2/s", "concurrency": 3.0}, "--rate"),
        ({"top": 0}, "--top"),
    ],
)
def test_a_bad_option_is_refused_by_name(change: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(**change)
    assert option in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_list_of_modes_is_refused() -> None:
    with pytest.raises(InputError):
        asked(modes=" , ")


def test_arrivals_are_poisson_unless_a_concurrency_is_given() -> None:
    assert Workload(isl=1, osl=1).arrivals == "poisson"
    assert Workload(isl=1, osl=1, rate=2).arrivals == "poisson"
    assert Workload(isl=1, osl=1, concurrency=2).arrivals == "closed_loop"


def test_a_job_cannot_hold_infinities_or_unknown_fields() -> None:
    for bad in ({"isl": math.inf}, {"osl": math.nan}, {"isl": 0}, {"speed": 1}):
        with pytest.raises(ValidationError):
            Workload(**{"isl": 10.0, "osl": 10.0, **bad})
