from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs
from planner.report import doctor
from planner.report.completion import complete_fleet, complete_gpu, complete_model, complete_target


def examined(today: date = date(2026, 11, 1), smi: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in doctor.examine(Catalogs(), today, lambda: smi)}


def test_this_installation_can_solve_and_read_its_catalogs() -> None:
    rows = examined()
    assert not [row for row in rows.values() if row["status"] == "failure"]
    assert "gives 2" in rows["solver HiGHS (ortools)"]["detail"] and "gives 2" in rows["solver CBC (pulp)"]["detail"]
    assert "sha256" in rows["hardware catalog"]["detail"]


def test_prices_grow_stale_with_time() -> None:
    assert examined(date(2020, 1, 1))["prices"]["status"] == "ok"
    aged = examined(date(2035, 1, 1))["prices"]
    assert aged["status"] == "warning" and "more" in aged["detail"]


def test_gpus_that_the_driver_names_are_looked_up_with_their_memory() -> None:
    rows = examined(smi="NVIDIA H200, 143771\n" * 8 + "NVIDIA Mystery, 1000\nNVIDIA H100 80GB HBM3, 40000\n")
    assert rows["GPU NVIDIA H200"]["status"] == "ok" and "8 x h200-sxm" in rows["GPU NVIDIA H200"]["detail"]
    assert rows["GPU NVIDIA Mystery"]["status"] == "warning"
    assert rows["GPU NVIDIA H100 80GB HBM3"]["status"] == "warning"  # half the memory of the catalog's
    assert "no nvidia-smi" in examined()["GPUs of this machine"]["detail"]


def test_a_broken_solver_or_catalog_is_a_failure_and_sets_the_exit_code(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command("doctor", "-o", "json").code == 0

    def broken() -> float:
        raise ImportError("undefined symbol")

    monkeypatch.setattr(doctor, "_highs", broken)
    ran = command("doctor", "-o", "json")
    assert ran.code == 1
    assert [row["check"] for row in json.loads(ran.out) if row["status"] == "failure"] == ["solver HiGHS (ortools)"]
    (tmp_path / "bad.toml").write_text("[")
    rows = doctor.examine(Catalogs((tmp_path,)), date(2026, 1, 1), lambda: None)
    assert any(row["check"] == "catalogs" and row["status"] == "failure" for row in rows)


def test_shells_complete_models_gpus_and_fleets() -> None:
    assert complete_model("meta-llama/llama-3.1-8") == ["meta-llama/Llama-3.1-8B"]
    assert "meta-llama/Llama-3.1-8B" in complete_model("llama-3.1")  # without the organisation
    assert complete_gpu("h100-s") == ["h100-sxm"]
    assert complete_fleet("l4:8,h100-s") == ["l4:8,h100-sxm:"] and complete_fleet("h100-sxm:1") == []
    assert complete_target("k") == ["kserve"] and complete_model("nosuch") == []
