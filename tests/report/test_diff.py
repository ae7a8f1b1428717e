from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.api import search
from planner.job.parse import parse_job
from planner.plan import PlanFile, to_json
from planner.report.diff import plan_changes


def found(fleet: str, **changes: Any) -> PlanFile:
    asked = {"model": "llama-3.1-8b", "isl": "1000", "osl": "200", "tpot": "30ms", "simulate_top": 0, **changes}
    return search(parse_job(fleet=fleet, **asked))


@pytest.fixture(scope="module")
def old() -> PlanFile:
    return found("h100-sxm:4")


@pytest.fixture(scope="module")
def new() -> PlanFile:
    return found("l40s:2", tpot="60ms")


def test_a_plan_does_not_differ_from_itself_whenever_it_was_made(old: PlanFile) -> None:
    assert plan_changes(old, found("h100-sxm:4")) == []


def test_what_got_better_and_worse_is_said_by_the_sense_of_the_number(old: PlanFile, new: PlanFile) -> None:
    rows = {row["what"]: row for row in plan_changes(old, new)}
    assert rows["GPUs"] == {"what": "GPUs", "old": 4, "new": 2, "change": "-50.0%", "is": "better"}
    assert rows["output tok/s"]["is"] == "worse" and rows["output tok/s"]["change"].startswith("-")
    assert rows["TPOT p95 ms"]["is"] == "worse" and rows["$/h"]["is"] == "better"
    assert rows["asked slo tpot"]["new"] == 0.06 and rows["asked slo tpot"]["is"] == ""
    assert "l40s" in rows["pools"]["new"]
    assert "catalog" not in rows and "model" not in rows


def test_the_command_prints_rows_or_says_that_nothing_differs(
    command: Callable[..., Any], old: PlanFile, new: PlanFile, tmp_path: Path
) -> None:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, plans in zip(paths, (old, new), strict=True):
        path.write_text(to_json(plans))
    assert json.loads(command("diff", *paths, "-o", "json").out)[0]["what"] == "GPUs"
    assert command("diff", paths[0], paths[0]).out == "no difference\n"
    assert command("diff", paths[0], paths[0], "-o", "json").out == "[]\n"
    refused = command("diff", paths[0], tmp_path / "absent.json")
    assert refused.code == 2 and "absent.json" in refused.err
