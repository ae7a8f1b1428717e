from __future__ import annotations

import io
import sys

import pytest

from planner.api import Catalogs, search
from planner.job.parse import parse_job
from planner.plan import PlanFile
from planner.report.explain import explain_plan
from planner.report.plans import layout_text, plan_rows, plans_text
from planner.report.progress import progress


def found(**changes: str) -> PlanFile:
    return search(
        parse_job(
            **{
                "model": "llama-3.1-70b",
                "fleet": "h100-sxm:7",
                "isl": "1000",
                "osl": "200",
                "simulate_top": 0,
                **changes,
            }
        )
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def odd() -> PlanFile:
    return found(tpot="40ms", weights="bf16")


def test_idle_gpus_are_told(odd: PlanFile) -> None:
    best = odd.plans[0]
    assert best.gpus_idle > 0  # 64 heads and 141 GB: no layout of bf16 weights uses all of seven GPUs
    assert f"Idle: {best.gpus_idle} of 7 GPUs" in plans_text(odd)


def test_rows_show_latencies_at_the_percentile_of_the_job() -> None:
    for percentile in ("mean", "p99"):
        result = found(percentile=percentile, tpot="60ms")
        row, plan = plan_rows(result)[0], result.plans[0]
        assert row[f"TPOT {percentile} ms"] == pytest.approx(getattr(plan.predicted.tpot_ms, percentile), rel=1e-3)


def test_a_layout_reads_as_engines_name_it(odd: PlanFile) -> None:
    pool = odd.plans[0].pools[0]
    wide = pool.model_copy(update={"layout": pool.layout.model_copy(update={"tp": 8, "pp": 2, "ep": 1})})
    assert layout_text(wide) == "tp8 pp2"
    alone = pool.model_copy(update={"layout": pool.layout.model_copy(update={"tp": 1, "pp": 1})})
    assert layout_text(alone) == "tp1"


def test_explaining_adds_up_and_relaxing_a_limit_never_costs_output(odd: PlanFile) -> None:
    explained = explain_plan(odd, 1, Catalogs(), lambda _: None)
    pool = odd.plans[0].pools[0]
    memory = explained["memory"]
    assert memory["weights_gib"] + memory["kv_gib"] + memory["activations_gib"] <= memory["capacity_gib"]
    # one iteration of the running batch is at least the part of TPOT that is not prefill
    assert sum(explained["decode_iteration_ms"].values()) <= odd.plans[0].predicted.tpot_ms.mean * 1.001
    assert explained["running_batch"] <= explained["max_batch"] == pool.max_batch
    outputs = [row["tok/s"] for row in explained["relaxing"]]
    assert outputs and all(
        b >= a * 0.995 for a, b in zip([odd.plans[0].predicted.output_tok_s, *outputs], outputs, strict=False)
    )
    assert any("TPOT p95" in line for line in explained["why"])


def test_progress_stays_silent_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress() as show:
        show("working")
    assert screen.getvalue() == ""


def test_progress_shows_after_a_second_and_wipes_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    clock = iter([0.0, 0.5, 3.0, 3.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with progress() as show:
        show("early")
        show("late")
    assert "early" not in screen.getvalue() and "late (3 s)" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[2K")
