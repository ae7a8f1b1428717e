"""``planner allocate``: the exact mixture for measured capacities, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

Command = Callable[..., Any]
# Mélange's example: its slices cost 6.70 $/h, a free split 4.68 $/h with both machines full to the last digit.
MELANGE = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}
OURS = {
    "offers": [{"name": "a", "cost_usd_per_hour": 1.0, "available": 8}, {"name": "b", "cost_usd_per_hour": 2.5}],
    "classes": [{"name": "w0", "rate": 3.0}, {"name": "w1", "rate": 1.0}],
    "capacity": {"a": {"w0": 2.0, "w1": 0.0}, "b": {"w0": 4.0, "w1": 2.0}},
}


def written(tmp_path: Path, profile: Any) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    return path


def test_the_json_is_that_of_the_contract(command: Command, tmp_path: Path) -> None:
    """b must serve w1, half of one; its other half takes 2 of w0, and one a the last: 1 + 2.5 $/h."""
    ran = command("allocate", written(tmp_path, OURS), "-o", "json", "--out", tmp_path / "found.json")
    assert ran.code == 0 and ran.err == ""
    found = strict_json(ran.out)
    assert set(found) >= {"status", "counts", "cost_usd_per_hour", "bound", "gap", "assignment", "solver", "elapsed_s",
                          "single_type"}  # fmt: skip
    assert (found["status"], found["counts"], found["cost_usd_per_hour"]) == ("optimal", {"a": 1, "b": 1}, 3.5)
    assert (found["bound"], found["gap"]) == (3.5, 0.0)
    assert found["single_type"] == {"a": None, "b": {"count": 2, "cost_usd_per_hour": 5.0}}
    assert sum(found["assignment"]["w0"].values()) == pytest.approx(3) and found["assignment"]["w1"] == {"b": 1.0}
    busy = {g: sum(row.get(g, 0) / OURS["capacity"][g][w] for w, row in found["assignment"].items() if row.get(g))
            for g in "ab"}  # type: ignore[index]  # fmt: skip
    assert all(busy[g] <= found["counts"][g] * (1 + 1e-9) for g in "ab")
    assert (tmp_path / "found.json").read_text() == ran.out


@pytest.mark.parametrize("solver", ["auto", "highs", "cp-sat", "scip", "pulp-cbc"])
def test_melanges_example_reaches_its_sliced_optimum_with_every_solver_and_no_banner(
    command: Command, tmp_path: Path, solver: str
) -> None:
    found = strict_json(command("allocate", written(tmp_path, MELANGE), "--solver", solver, "-o", "json").out)
    assert (found["status"], found["cost_usd_per_hour"], found["counts"]) == ("optimal", 6.7, {"A10G": 3, "A100": 1})


def test_melange_cases_through_the_command_line(command: Command, tmp_path: Path, shared: Path) -> None:
    for case in json.loads((shared / "peers" / "melange_cases.json").read_text())["cases"]:
        ran = command("allocate", written(tmp_path, case["input"]), "-o", "json")
        found = strict_json(ran.out)
        assert (ran.code, found["status"]) == (0, "optimal")
        assert found["cost_usd_per_hour"] == pytest.approx(case["exact_sliced_optimum"]["cost"], abs=1e-9)
        for name, single in case["single_gpu_type_baselines"].items():
            assert found["single_type"][name]["count"] == single["count"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"capacity": {"a": {"w0": 1.0}, "b": {"w0": 1.0}}}, "w1"),
        ({"offers": [{"name": "a", "cost_usd_per_hour": 1.0, "available": 0},
                     {"name": "b", "cost_usd_per_hour": 1.0, "available": 0}]}, "available"),
    ],
)  # fmt: skip
def test_an_infeasible_profile_ends_with_1_and_the_reason(
    command: Command, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, {**OURS, **changes})
    ran = command("allocate", path, "-o", "json")
    found = strict_json(ran.out)
    assert (ran.code, found["status"], found["cost_usd_per_hour"]) == (1, "infeasible", None)
    assert said in " ".join(found["reasons"])
    refused(command("allocate", path), "no mixture", said, code=1)


def test_each_way_out_of_an_infeasible_profile_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """What has to be dropped together is not offered as one or the other."""
    scarce = [{"name": "a", "cost_usd_per_hour": 1.0, "available": 0}, {"name": "b", "cost_usd_per_hour": 1.0,
                                                                        "available": 0}]  # fmt: skip
    found = strict_json(command("allocate", written(tmp_path, {**OURS, "offers": scarce}), "-o", "json").out)
    raised, dropped = found["reasons"]
    assert raised.startswith("raise a limit: ") and dropped.startswith("or lower the demand: ")
    assert " and " in dropped and all(c["name"] in dropped for c in OURS["classes"])


def test_a_bad_profile_or_option_is_refused(command: Command, tmp_path: Path) -> None:
    path = written(tmp_path, OURS)
    refused(command("allocate", tmp_path / "absent.json"), "absent.json")
    refused(command("allocate", path, "--solver", "gurobi"), "unknown solver")
    refused(command("allocate", path, "--time-limit", "5"), "--time-limit", "no unit")
    refused(command("allocate", path, "-o", "xml"), "unknown output format")
    refused(command("allocate", path, "--out", tmp_path / "x.pdf"), "--out")
    refused(command("allocate", written(tmp_path, {**OURS, "surprise": 1})), "surprise")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"offers": [{"name": "a", "cost": 1.0}]}, "offers[0].cost_usd_per_hour is missing (and 1 more)"),
        ({"offers": [{"name": "a", "cost_usd_per_hour": "1.0"}]}, "offers[0].cost_usd_per_hour is '1.0'; it must be a"),
        ({"classes": {"w0": 3.0}}, "classes is an object; it must be a list"),
        ({"capacity": {"a": {"w0": -2.0}}}, "capacity.a.w0 is -2.0; it must be at least 0"),
        ({"capacity": {"a": {"w0": 1e-320}}}, "capacity.a.w0 is 9.99989e-321; it must be 0 (cannot), or at least"),
        ({"classes": [{"name": "w0", "rate": 1e308}]}, "classes[0].rate is 1e+308; it must be at most 1e+12"),
        ({"split": "sliced"}, "split is 'sliced'; it must be 'fractional' or an object"),
        ({"split": {"slices": 0}}, "split.slices is 0; it must be at least 1"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_the_form_that_is_expected(
    command: Command, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, {**OURS, **changes})
    refused(command("allocate", path), f"error: {path}: {said}", 'hint: expected {"offers": [{"name", ')


def test_each_format_of_a_profile_is_told_with_its_own_example(command: Command, tmp_path: Path) -> None:
    refused(command("allocate", written(tmp_path, {**MELANGE, "gpu_info": {"A10G": {"cost": 1}}})),
            "gpu_info.A10G.tputs is missing", 'hint: expected {"gpu_info": ')  # fmt: skip
    refused(command("allocate", written(tmp_path, {**MELANGE, "workload_distribution": [[3.0]]})),
            "workload_distribution[0][0] is 3.0; it must be at most 1")  # fmt: skip
    refused(command("allocate", written(tmp_path, {**DEVICES, "layers": "6"})),
            "layers is '6'; it must be a whole number", 'hint: expected {"layers": 80, ')  # fmt: skip


def test_the_table_names_who_serves_what(command: Command, tmp_path: Path) -> None:
    ran = command("allocate", written(tmp_path, OURS))
    assert ran.code == 0 and "3.5 $/h, optimal" in ran.out and "w1 1/s" in ran.out and "2 for 5 $/h" in ran.out


DEVICES = {"layers": 6, "devices": [{"name": "a", "count": 2, "rates": [12.0, 6.0, 4.0, 3.0]},
                                    {"name": "b", "count": 3, "rates": [4.0, 2.0]}]}  # fmt: skip


def test_pipelines_over_two_device_types_are_found_with_their_bound(command: Command, tmp_path: Path) -> None:
    """Both a with three layers each run at 4/s, the three b with two each at 2/s; more than any single pipeline."""
    ran = command("allocate", written(tmp_path, DEVICES), "-o", "json")
    found = strict_json(ran.out)
    assert ran.code == 0 and found["rate"] == 6.0 and found["bound"] >= 6.0
    assert sum(row["count"] * row["rate"] for row in found["pipelines"]) == 6.0
    assert all(
        sum(row["devices"][d] * row["most_layers"][d] for d in row["devices"]) >= 6 for row in found["pipelines"]
    )
    assert "6 in all" in command("allocate", written(tmp_path, DEVICES)).out


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"layers": 0}, "layers"), ({"devices": []}, "devices"),
     ({"devices": [{"name": "a", "count": 1, "rates": [1.0, 2.0]}]}, "faster with more layers"),
     ({"devices": [{"name": "a", "count": 1, "rates": [-1.0]}]}, "rates"), ({"surprise": 1}, "surprise")],
)  # fmt: skip
def test_bad_devices_are_refused(command: Command, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    refused(command("allocate", written(tmp_path, {**DEVICES, **changes})), said)


def test_devices_that_cannot_hold_the_model_end_with_1(command: Command, tmp_path: Path) -> None:
    refused(command("allocate", written(tmp_path, {**DEVICES, "layers": 99})), "99 layers", code=1)
