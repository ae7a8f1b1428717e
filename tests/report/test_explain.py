from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs, search
from planner.job.parse import parse_job
from planner.job.speculating import Speculating
from planner.plan import ModeRow, PlanFile, read_plan_file, to_json
from planner.report.explain import explain_plan
from planner.report.html import html_report
from planner.report.modes import compare_modes
from planner.report.single import time_by_operator
from planner.report.why import GLOSSARY
from planner.search.terms import DECODING, FULL, GPUS, KERNELS, OWN, PRICE, PROMPTS, QUEUE, RUNNING
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths


def found(**changes: Any) -> PlanFile:
    asked = {"model": "llama-3.1-70b", "fleet": "h100-sxm:8", "isl": "2000", "osl": "300", "ttft": "2s"}
    return search(parse_job(**{**asked, "tpot": "50ms", "simulate_top": 1, "top": 3, **changes}))


def explained(file: PlanFile, rank: int = 1) -> dict[str, Any]:
    return explain_plan(file, rank, Catalogs(), lambda _: None)


@pytest.fixture(scope="module")
def plain() -> PlanFile:
    return found()


@pytest.fixture(scope="module")
def story(plain: PlanFile) -> dict[str, Any]:
    return explained(plain)


def test_every_limit_is_held_against_prediction_and_simulation_and_one_is_the_tightest(story: dict[str, Any]) -> None:
    lines = [line for line in story["why"] if " of " in line and line[:4] in ("TTFT", "TPOT")]
    assert len(lines) == 2 and all("predicted" in line and "simulated" in line for line in lines)
    assert sum(("tightest" in line) or ("binds" in line) for line in lines) >= 1
    assert any(line.startswith("Plan 1 is optimal") for line in story["why"])


def test_the_parts_of_the_mean_tpot_add_up_and_no_step_beats_the_datasheet(
    plain: PlanFile, story: dict[str, Any]
) -> None:
    parts = next(line for line in story["pools"][0]["notes"] if line.startswith("mean TPOT"))
    mean, step, others = (float(x.replace(",", "")) for x in re.findall(r"([\d.,]+) ms", parts))
    assert mean == pytest.approx(step + others, rel=1e-3)
    assert mean == pytest.approx(plain.plans[0].predicted.tpot_ms.mean, rel=1e-3)
    assert step == pytest.approx(sum(story["decode_iteration_ms"].values()), rel=1e-3)
    shares = [int(x) for line in story["pools"][0]["notes"] for x in re.findall(r"(\d+)% of", line)]
    assert len(shares) == 2 and all(5 < share < 100 for share in shares)


def test_relaxing_compares_closed_forms_with_closed_forms(story: dict[str, Any]) -> None:
    rows = story["relaxing"]
    assert rows
    for row in rows:
        assert row["change"] == "nothing" or row["change"].startswith("+")
    by_limit = {name: [r["tok/s"] for r in rows if r["limit"].startswith(name)] for name in ("TTFT", "TPOT")}
    for speeds in by_limit.values():
        assert speeds == sorted(speeds) and len(speeds) == len(set(speeds)) >= 1  # only what changes is a row


def test_a_limit_that_costs_nothing_is_one_row_that_says_so() -> None:
    rows = explained(found(rate="0.2/s", fleet="h100-sxm:4", tpot="80ms", simulate_top=0))["relaxing"]
    assert [row["change"] for row in rows] == ["nothing", "nothing"]


def test_gpus_that_a_looser_limit_saves_are_counted() -> None:
    rows = explained(found(rate="4/s", tpot="14ms", ttft="4s", fleet="h100-sxm:32", simulate_top=0))["relaxing"]
    assert any("saved" in row["change"] and row["change"].startswith("-") for row in rows)


def test_a_split_plan_is_explained_pool_by_pool() -> None:
    split = found(modes="pd", simulate_top=0, top=1)
    told = explained(split)
    prefill, decode = told["pools"]
    assert (prefill["role"], decode["role"]) == ("prefill", "decode")
    assert "decode_iteration_ms" not in prefill and "prefill_of_one_prompt_ms" not in decode
    assert sum(1 for line in told["why"] if "KV cache has room" in line) == 2
    page = html_report(split, Catalogs())
    assert "prefill" in page and "one prompt" in page and "one decode step" in page


def test_a_lower_rank_says_how_far_it_is_behind(plain: PlanFile) -> None:
    first = explained(plain, 2)["why"][0]
    assert first.endswith(")") and "behind the best throughput found" in first


def test_modes_that_tie_are_said_to_tie_and_nothing_decides_where_nothing_differs(plain: PlanFile) -> None:
    def rows(value: float, gpus: float) -> PlanFile:
        modes = [
            ModeRow(mode="pd", plan="a", value=100.0, terms={GPUS: 8.0}),
            ModeRow(mode="af", plan="b", value=value, terms={GPUS: gpus}),
        ]
        return plain.model_copy(update={"search": plain.search.model_copy(update={"modes": modes})})

    assert compare_modes(rows(99.99, 8.0)) == ["the best af plan (b) ties with pd on throughput"]
    assert compare_modes(rows(50.0, 4.0)) == [
        "the best af plan (b) is 50.0% behind pd on throughput: 4 GPUs in use, not 8: whole replicas leave the others "
        "idle"
    ]
    assert compare_modes(rows(50.0, 8.0)) == ["the best af plan (b) is 50.0% behind pd on throughput"]


def test_what_decides_on_cost_is_a_factor_of_the_output_per_dollar_not_the_number_of_gpus(plain: PlanFile) -> None:
    first = ModeRow(mode="aggregated", plan="a", value=1.0, terms={GPUS: 8.0, DECODING: 1.0, RUNNING: 9.0, PRICE: 1.0})
    other = ModeRow(mode="pd", plan="b", value=1.6, terms={GPUS: 2.0, DECODING: 0.8, RUNNING: 9.0, PRICE: 2.0})
    proof = plain.plans[0].certificate.model_copy(update={"objective": "cost"})
    leader = plain.plans[0].model_copy(update={"certificate": proof})
    search_info = plain.search.model_copy(update={"modes": [first, other]})
    (line,) = compare_modes(plain.model_copy(update={"plans": [leader], "search": search_info}))
    assert line.endswith("60.0% behind aggregated on cost: its GPUs cost $2.00 an hour each, not $1.00")


@pytest.mark.parametrize(
    ("full", "ttft", "interference", "said"),
    [(1.0, 100.0, 5.0, "as many as its memory holds"),
     (0.2, 999.0, 5.0, "as TTFT is at its limit, 80% of it queue for prefill (pd: 10%)"),
     (0.2, 100.0, 20.0, "as its TPOT allows, 50% of it prefill of other requests (pd: 0%)")],
)  # fmt: skip
def test_what_holds_fewer_requests_is_named(
    plain: PlanFile, full: float, ttft: float, interference: float, said: str
) -> None:
    first = ModeRow(
        mode="pd", plan="a", value=100.0, terms={GPUS: 8.0, DECODING: 0.5, RUNNING: 40.0, FULL: 0.1},
        tpot_ms={KERNELS: 40.0}, ttft_ms={QUEUE: 10.0, OWN: 90.0},
    )  # fmt: skip
    other = ModeRow(
        mode="aggregated", plan="b", value=50.0, terms={GPUS: 8.0, DECODING: 1.0, RUNNING: 10.0, FULL: full},
        tpot_ms={KERNELS: 40.0 - interference, PROMPTS: interference}, ttft_ms={QUEUE: 0.8 * ttft, OWN: 0.2 * ttft},
    )  # fmt: skip
    job = {**plain.job, "slo": {**plain.job["slo"], "ttft": 1.0, "tpot": 0.05}}
    seen = plain.model_copy(update={"job": job, "search": plain.search.model_copy(update={"modes": [first, other]})})
    (line,) = compare_modes(seen)
    assert line.endswith(f": 0.25 times as many requests run on a decoding GPU, {said}")


def test_the_terms_of_each_mode_multiply_to_its_output_and_add_up_to_its_latencies() -> None:
    split = found(modes="aggregated,pd", simulate_top=0)
    for row in split.search.modes:
        seconds = sum(row.tpot_ms.values()) / 1e3
        rate = row.terms[GPUS] * row.terms[DECODING] * row.terms[RUNNING] / seconds
        osl = split.job["workload"]["osl"]
        assert rate * osl / (osl - 1) == pytest.approx(row.value, rel=0.01)
        best = next((plan for plan in split.plans if plan.mode == row.mode), None)
        if best is not None and best.predicted.output_tok_s == pytest.approx(row.value, rel=1e-5):
            assert sum(row.ttft_ms.values()) == pytest.approx(best.predicted.ttft_ms.p95, rel=0.01)


def test_every_word_that_is_explained_is_an_operator_of_some_model() -> None:
    operators: set[str] = set()
    cases = (
        ("qwen/qwen3-next-80b-a3b", Layout(2)), ("deepseek-ai/DeepSeek-V3", Layout(1, 8, 2, 8)),
        ("llama-3.1-8b", Layout(cp=2)),
    )  # fmt: skip
    for model, layout in cases:
        replica = Catalogs().replica(model, "h200-sxm", "fp8", "bf16", "vllm")
        drafting = Catalogs().drafting(Speculating(method="ngram", tokens=1))
        assert drafting is not None
        for kind in (replica, *drafting.replicas(replica)):
            for spent in time_by_operator(kind, layout, 16.0, Lengths(1000.0, 100.0)).values():
                operators |= {name for name, ms in spent.items() if ms > 0}
    assert set(GLOSSARY) <= operators


def test_explanations_come_in_every_form_that_text_has(
    command: Callable[..., Any], plain: PlanFile, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(plain))
    text = command("explain", path, "--out", tmp_path / "why.md", "--out", tmp_path / "why.json").out
    assert "Memory of the fullest GPU" in text and "of a decode step" in text and "What relaxing one limit buys" in text
    assert "| operator |" in (tmp_path / "why.md").read_text()
    assert json.loads((tmp_path / "why.json").read_text())["plan"]["#"] == 1
    assert command("explain", path, "-o", "yaml").out.startswith("plan:")


@pytest.mark.parametrize("load", [{}, {"concurrency": 60}])
def test_the_first_token_of_a_split_is_the_sum_of_its_parts(load: dict[str, Any]) -> None:
    split = found(modes="pd", simulate_top=0, top=1, **load)
    told = explained(split)
    parts = told["first_token"]["parts_ms"]
    assert sum(parts.values()) == pytest.approx(split.plans[0].predicted.ttft_ms.p95, rel=0.01)
    assert {"queue for prefill", "own prefill", "exposed KV transfer"} <= set(parts)
    assert all(ms >= -1e-6 for ms in parts.values())
    # 80 layers of 8 KV heads of 128, keys and values, an element a byte or two: 2,000 tokens.
    width = 2 if split.plans[0].pools[0].kv == "bf16" else 1
    assert told["first_token"]["cache_bytes"] == 2000 * 80 * 2 * 8 * 128 * width
    assert 0 < told["first_token"]["load"]["prefill"] <= 1
    assert any(line.startswith("TTFT p95") and "own prefill" in line for line in told["why"])


def test_drafts_between_attention_and_ffn_workers_are_saved_and_told(tmp_path: Path) -> None:
    asked = {"model": "stepfun-ai/step3", "fleet": "h800-sxm:24", "modes": "af", "weights": "fp8", "kv": "fp8"}
    asked |= {"isl": "4000", "osl": "500", "ttft": "10s", "tpot": "30ms", "speculate": "eagle", "acceptance": "0.7"}
    file = found(**asked, draft_tokens=2, top=1)
    path = tmp_path / "plan.json"
    path.write_text(to_json(file))
    again = read_plan_file(path)
    assert again == file
    told, plan = explained(again), again.plans[0]
    how = plan.pools[-1].speculation
    assert how is not None and all(pool.speculation == how for pool in plan.pools)
    assert sum(line.startswith("drafts eagle") for line in told["why"]) == 1
    attention = told["pools"][-1]
    used = next(row for row in attention["drafts"] if row["draft"].endswith("(in use)"))
    assert used["tokens/step"] == how.tokens_per_step
    # The search interpolates D(B) between batches.
    assert used["ms/token"] == pytest.approx(plan.predicted.tpot_ms.mean, rel=0.05)
    assert used["requests that fit"] == plan.pools[-1].max_batch
    assert told["stages"]["drafting_ms"] > 0
    assert told["stages"]["iteration_ms"] == pytest.approx(used["step ms"], rel=1e-4)
