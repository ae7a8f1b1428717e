"""Fixed configurations, one prediction per row; and the accuracy on published measurements."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from planner.api import estimate
from planner.job.points import Point, parse_points, read_points
from planner.serving.estimated import Estimate

COLUMNS = "id,model,gpu,weights,mode,tp,pp,attention_dp,ep,replicas,concurrency,isl,osl"


def predicted(*rows: str) -> list[Estimate]:
    return estimate(list(parse_points([COLUMNS, *rows], "points.csv")))


def test_every_row_is_answered_in_order_and_one_bad_row_stops_no_other() -> None:
    rows = (
        "z,meta-llama/Llama-3.1-8B,h100-sxm,bf16,aggregated,1,1,1,1,1,16,1000,200",
        "broken,meta-llama/Llama-3.1-8B,h100-sxm,bf16,aggregated,one,1,1,1,1,16,1000,200",
        "a,qwen/qwen3-30b-a3b,mi300x,fp8,aggregated,2,1,1,1,1,16,1000,200",
        "who,acme/unheard-of-1b,h100-sxm,bf16,aggregated,1,1,1,1,1,16,1000,200",
        "gpu,meta-llama/Llama-3.1-8B,h1000,bf16,aggregated,1,1,1,1,1,16,1000,200",
        "big,meta-llama/Llama-3.1-405B,h100-sxm,bf16,aggregated,8,1,1,1,1,16,1000,200",
        "odd,meta-llama/Llama-3.1-8B,h100-sxm,bf16,aggregated,3,1,1,1,1,16,1000,200",
        "mode,meta-llama/Llama-3.1-8B,h100-sxm,bf16,teleported,1,1,1,1,1,16,1000,200",
        "weights,meta-llama/Llama-3.1-8B,h100-sxm,bf15,aggregated,1,1,1,1,1,16,1000,200",
        "static,meta-llama/Llama-3.1-8B,h100-sxm,bf16,static,1,1,1,1,1,16,1000,200",
    )
    found = predicted(*rows)
    assert [e.id for e in found] == [row.split(",")[0] for row in rows]
    status = {e.id: e.status for e in found}
    assert [name for name, s in status.items() if s == "ok"] == ["z", "a", "static"]
    assert [name for name, s in status.items() if s == "infeasible"] == ["big"]
    reasons = {e.id: e.reason for e in found if e.status != "ok"}
    assert all(reasons.values())
    for name, said in (
        ("broken", "tp 'one'"),
        ("who", "unheard-of"),
        ("gpu", "h1000"),
        ("odd", "divisible by 3"),
        ("mode", "teleported"),
        ("weights", "bf15"),
        ("big", "GiB per GPU"),
    ):
        assert said in reasons[name], name
    assert all(e.row()["ttft_ms"] is None for e in found if e.status != "ok")


def test_a_rows_answer_does_not_depend_on_its_neighbours() -> None:
    rows = [
        f"{c},meta-llama/Llama-3.1-8B,h100-sxm,bf16,aggregated,{tp},1,1,1,1,{c},1000,200"
        for c, tp in ((1, 1), (40, 2), (700, 1))
    ]
    together = predicted(*rows)
    for row, joint in zip(rows, together, strict=True):
        (alone,) = predicted(row)
        # 1 %: the interpolation grid spans the largest concurrency of the rows that run together
        assert joint.tpot == pytest.approx(alone.tpot, rel=0.01)
        assert joint.output_rate_per_gpu == pytest.approx(alone.output_rate_per_gpu, rel=0.01)


def test_replicas_share_the_requests_in_flight() -> None:
    for mode in ("aggregated", "static"):
        one, three = predicted(
            f"1,meta-llama/Llama-3.1-8B,h100-sxm,bf16,{mode},1,1,1,1,1,32,1000,200",
            f"3,meta-llama/Llama-3.1-8B,h100-sxm,bf16,{mode},1,1,1,1,3,96,1000,200",
        )
        assert three.tpot == pytest.approx(one.tpot, rel=1e-9)
        assert three.output_rate_per_gpu == pytest.approx(one.output_rate_per_gpu, rel=1e-9)
        assert three.memory == pytest.approx(one.memory, rel=1e-9)


def test_units_leave_as_the_columns_say() -> None:
    row = Estimate("x", "ok", "", 0.5, 0.02, 1234.5, 4.48, 2.0**31).row()
    assert (row["ttft_ms"], row["tpot_ms"], row["e2e_latency_ms"], row["memory_gib_per_gpu"]) == (500, 20, 4480, 2)


def test_a_static_batch_beyond_the_cache_is_ok_in_waves_and_infeasible_only_when_one_request_does_not_fit() -> None:
    template = "{},meta-llama/Llama-3.1-8B,h100-sxm,bf16,static,1,1,1,1,1,{},{},100"
    one, many, endless = predicted(
        template.format("one", 1, 100_000),
        template.format("many", 64, 100_000),
        template.format("endless", 1, 2_000_000),
    )
    assert (one.status, many.status, endless.status) == ("ok", "ok", "infeasible")
    # 128 KiB of cache per token: 4 to 5 requests of 100,100 tokens fit, so 64 take many waves
    assert many.e2e > 8 * one.e2e
    assert many.memory < 80 * 2**30


@pytest.mark.parametrize("mode", ["aggregated", "static"])
def test_crowds_beyond_the_cache_wait_and_still_get_an_answer(mode: str) -> None:
    template = f"{{}},meta-llama/Llama-3.1-70B,h100-sxm,bf16,{mode},4,1,1,1,1,{{}},4000,200"
    few, crowd = predicted(template.format("few", 1), template.format("crowd", 5000))
    assert crowd.status == "ok" and crowd.output_rate_per_gpu > few.output_rate_per_gpu
    assert crowd.e2e > few.e2e


@pytest.mark.parametrize("mode", ["aggregated", "static"])
def test_prompts_found_in_the_cache_are_not_computed_again(mode: str) -> None:
    columns = "id,model,gpu,weights,mode,concurrency,isl,osl,prefix_hit"
    row = f"meta-llama/Llama-3.1-8B,h100-sxm,bf16,{mode},64,4000,200"
    cold, warm, wrong = estimate(list(parse_points([columns, f"a,{row},", f"b,{row},0.9", f"c,{row},2"], "x.csv")))
    assert warm.ttft < 0.5 * cold.ttft and warm.output_rate_per_gpu > 1.2 * cold.output_rate_per_gpu
    assert (wrong.status, wrong.ttft) == ("unsupported", None) and "prefix_hit is '2'" in wrong.reason


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Point], list[Estimate], float, dict]:
    """Predictions of every published measurement, the seconds they took, and their score."""
    shared = Path(__file__).resolve().parents[3] / "shared"
    source = shared / "measured" / "e2e_points.csv"
    if not source.is_file():
        pytest.skip("no reference material beside this checkout")
    points = read_points(source)
    started = time.process_time()
    found = estimate(points)
    seconds = time.process_time() - started
    out = tmp_path_factory.mktemp("score") / "predictions.csv"
    rows = [e.row() for e in found]
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    score = partial(subprocess.run, capture_output=True, text=True, check=True)
    shown = score([sys.executable, shared / "tools" / "score_estimates.py", source, out, "--json"]).stdout
    return points, found, seconds, json.loads(shown)


def test_every_published_measurement_is_answered_in_order_within_ten_seconds(answers: tuple) -> None:
    points, found, seconds, _ = answers
    assert [e.id for e in found] == [p.id for p in points]
    assert seconds < 10


def test_at_least_97_percent_of_aggregated_and_static_measurements_are_predicted(answers: tuple) -> None:
    points, found, _, _ = answers
    asked = [e for p, e in zip(points, found, strict=True) if p.mode in ("aggregated", "static")]
    refused = [e for e in asked if e.status != "ok"]
    assert len(refused) <= 0.03 * len(asked), sorted({e.reason for e in refused})[:5]
    assert all(e.reason for e in refused)


# The three limits below are the first accuracy that the foundation issue asks for.
def test_median_error_of_tpot_is_at_most_14_percent(answers: tuple) -> None:
    assert answers[3]["aggregated"]["tpot_ms"]["median_ape"] <= 14.0


def test_median_error_of_throughput_is_at_most_15_percent(answers: tuple) -> None:
    assert answers[3]["aggregated"]["output_tok_s_per_gpu"]["median_ape"] <= 15.0


def test_decisions_reach_at_least_85_percent_of_the_best_choice(answers: tuple) -> None:
    assert answers[3]["decision"]["quality"] >= 0.85
