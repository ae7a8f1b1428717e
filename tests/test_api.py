from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from planner.api import Catalogs, estimate, no_plan, search
from planner.errors import NoPlanError, UnknownNameError
from planner.job.fleet import parse_fleet
from planner.job.job import Job
from planner.job.parse import parse_job
from planner.job.points import Point, PoolPoint
from planner.report.modes import compare_modes


def asked(**changes: object) -> Job:
    words = {"model": "llama-3.1-8b", "fleet": "h100-sxm:4", "isl": "1000", "osl": "200", "simulate_top": 0, **changes}
    return parse_job(**words)  # type: ignore[arg-type]


def test_two_names_of_one_gpu_are_one_supply() -> None:
    (one,) = Catalogs().supplies(parse_fleet("H100:3,h100-sxm:2"))
    assert (one.accelerator.id, one.count) == ("h100-sxm", 5)


def test_no_plan_is_an_error_with_the_nearest_miss_and_never_an_empty_file() -> None:
    with pytest.raises(NoPlanError) as refused:
        search(asked(tpot="10us"))
    assert "misses tpot" in str(refused.value)
    assert refused.value.hint is not None and refused.value.hint.startswith("nearest miss: h100-sxm")
    assert no_plan([]).exit_code == 1


def test_the_shape_of_other_layouts_does_not_hide_why_no_plan_meets_the_limits() -> None:
    rows = [("attention heads do not divide by tp", 50, "x"), ("misses ttft even when idle", 2, "nearest")]
    error = no_plan(rows)
    assert "2 of 2 candidates" in str(error) and "misses ttft" in str(error) and "nearest" in str(error.hint)


def test_a_mode_that_was_not_asked_for_is_not_offered_instead() -> None:
    """A model that cannot be split is refused with that reason, not answered with aggregated replicas."""
    words = {"model": "qwen/qwen3-next-80b-a3b", "fleet": "h200-sxm:32"}
    with pytest.raises(NoPlanError, match="hybrid state cannot be split"):
        search(asked(**words, modes="af"))
    told = compare_modes(search(asked(**words, modes="aggregated,af")))
    assert told == [
        "no af plan: hybrid state cannot be split (af h200-sxm bf16: needs attention in every layer, has "
        "linearattention)"
    ]


def test_a_draft_of_another_vocabulary_is_told() -> None:
    words = {"fleet": "h100-sxm:1", "concurrency": 2.0, "draft_tokens": 1, "acceptance": "0.6"}
    same = search(asked(model="llama-3.1-70b", **{**words, "fleet": "h100-sxm:4"}, speculate="draft:llama-3.1-8b"))
    other = search(asked(**words, speculate="draft:qwen/qwen3-0.6b"))
    assert same.search.warnings == []
    assert "151,936 tokens in its vocabulary" in other.search.warnings[0]


def test_a_plan_predicts_what_an_estimate_of_the_same_configuration_predicts() -> None:
    plan = search(asked(concurrency=64.0, weights="bf16", kv="bf16")).plans[0]
    pool = plan.pools[0]
    point = Point(
        id="1", model="llama-3.1-8b", gpu=pool.gpu, weights=pool.weights, kv=pool.kv, engine=pool.engine,
        concurrency=64.0, isl=1000, osl=200, statistic="p50",
        pool=PoolPoint(pool.replicas, pool.layout.tp, pool.layout.pp, pool.layout.attention_dp, pool.layout.ep),
    )  # fmt: skip
    (same,) = estimate([point])
    # 1 %: both interpolate, on grids that span the rows evaluated together. The median: a load test's mean and rate
    # keep its opening burst, a deployment has none.
    assert same.tpot * 1e3 == pytest.approx(plan.predicted.tpot_ms.mean, rel=0.01)
    assert same.ttft * 1e3 == pytest.approx(plan.predicted.ttft_ms.p50, rel=0.01)


def test_all_names_of_a_model_give_the_same_plans() -> None:
    names = ("meta-llama/Llama-3.1-8B", "llama-3.1-8b", "META-LLAMA/META-LLAMA-3.1-8B")
    first, *others = (search(asked(model=name)) for name in names)
    assert all(found.plans == first.plans for found in others)
    assert all(found.provenance.model_sha256 == first.provenance.model_sha256 for found in others)


def test_every_call_gives_the_same_answer() -> None:
    first, second = (search(asked(tpot="30ms")).model_dump() for _ in range(2))
    for found in (first, second):
        del found["provenance"]["created"], found["search"]["elapsed_s"]
    assert first == second


def test_progress_is_told_to_the_caller_who_asks_for_it() -> None:
    heard: list[str] = []
    search(asked(), progress=heard.append)
    assert heard and all("h100-sxm" in line for line in heard)


def test_precisions_are_checked_where_replicas_are_made() -> None:
    for weights, kv in (("fp99", ""), ("bf16", "fp99")):
        with pytest.raises(UnknownNameError):
            Catalogs().replica("llama-3.1-8b", "h100-sxm", weights, kv, "vllm")


def test_a_users_gpu_changes_the_catalog_hash(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "[accelerators.my-gpu]\nmemory_gib = 60\nmemory_bandwidth_gbs = 2000\nbf16_tflops = 500\n"
    )
    plain, own = search(asked()), search(asked(), catalogs=Catalogs((tmp_path,)))
    assert plain.provenance.catalog_sha256 != own.provenance.catalog_sha256
    assert plain.plans == own.plans


def test_a_search_of_equal_replicas_reads_neither_the_optimiser_nor_the_splits() -> None:
    """Their modules take longer to read than such a search takes."""
    program = (
        "import sys\nfrom planner.api import search\nfrom planner.job.parse import parse_job\n"
        "search(parse_job(model='meta-llama/Llama-3.1-8B', fleet='h100-sxm:4', isl='500', osl='50', simulate_top=1))\n"
        "print([name for name in sys.modules if name.startswith(('planner.search.mixture', 'planner.comparison',"
        " 'planner.search.splits', 'planner.serving.afd', 'ortools'))])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
