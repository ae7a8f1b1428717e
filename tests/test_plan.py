from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from planner.api import search
from planner.errors import InputError
from planner.job.parse import parse_job
from planner.plan import FORMAT_VERSION, Plan, PlanFile, PoolLayout, read_plan_file, to_json


@pytest.fixture(scope="module")
def saved() -> PlanFile:
    return search(
        parse_job(
            model="llama-3.1-8b", fleet="h100-sxm:5", isl="1000", osl="200", tpot="20ms", ttft="1s", simulate_top=0
        )
    )


def test_a_plan_survives_saving_and_reading_byte_by_byte(saved: PlanFile, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(saved))
    again = read_plan_file(path)
    assert to_json(again) == path.read_text()
    assert again.plan(2) == saved.plan(2)


def test_fields_of_later_minor_versions_are_kept_and_later_major_versions_refused(
    saved: PlanFile, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    later = {**json.loads(to_json(saved)), "format_version": "1.7", "carbon": {"g": 3}}
    path.write_text(json.dumps(later))
    assert json.loads(to_json(read_plan_file(path)))["carbon"] == {"g": 3}
    path.write_text(json.dumps({**later, "format_version": "2.0"}))
    with pytest.raises(InputError, match=r"format 2\.0 is not understood"):
        read_plan_file(path)
    assert FORMAT_VERSION.startswith("1.")


def test_a_missing_rank_names_the_ranks_there_are(saved: PlanFile) -> None:
    with pytest.raises(InputError) as refused:
        saved.plan(0)
    assert refused.value.hint == "1 to 5"


def test_the_first_plan_is_its_own_bound_and_later_ones_carry_their_distance(saved: PlanFile) -> None:
    bound = saved.plans[0].certificate.value
    assert saved.plans[0].certificate.status == "optimal"
    for plan in saved.plans:
        proof = plan.certificate
        assert proof.bound == bound
        assert proof.gap == pytest.approx(1 - proof.value / bound, abs=1e-5)  # throughput: below the bound
        assert proof.objective == "throughput" and proof.value == plan.predicted.output_tok_s


@pytest.mark.parametrize("load", [{"rate": "5/s"}, {"concurrency": 40.0}, {}])
@pytest.mark.parametrize("objective", ["throughput", "cost", "latency", "gpus", "energy"])
def test_no_ranked_plan_beats_the_value_that_is_certified_as_best(objective: str, load: dict) -> None:
    asked = parse_job(
        model="llama-3.1-8b",
        fleet="h100-sxm:4,l40s:4",
        isl="1000",
        osl="200",
        top=1000,
        simulate_top=0,
        objective=objective,
        **load,
    )
    values = [plan.certificate.value for plan in search(asked).plans]
    best = max(values) if objective == "throughput" else min(values)
    assert values[0] == pytest.approx(best, rel=1e-5)


def test_impossible_layouts_and_wrong_types_do_not_validate(saved: PlanFile) -> None:
    with pytest.raises(ValidationError):
        PoolLayout(tp=0, attention_dp=1, pp=1, ep=1, cp=1)
    broken = {**saved.plans[0].model_dump(), "gpus_total": "many"}
    with pytest.raises(ValidationError):
        Plan.model_validate(broken)


def test_numbers_have_six_digits_at_most(saved: PlanFile) -> None:
    def floats(value: object) -> list[float]:
        if isinstance(value, dict):
            return [x for item in value.values() for x in floats(item)]
        if isinstance(value, list | tuple):
            return [x for item in value for x in floats(item)]
        return [value] if isinstance(value, float) else []

    assert all(x == float(f"{x:.6g}") for plan in saved.plans for x in floats(plan.model_dump()))
