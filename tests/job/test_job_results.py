"""What load generators write is read in their units, and refused where it would mislead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.job.points import Point
from planner.job.results import Deployment, read_results

DEPLOYMENT = Deployment(gpu="h100-sxm", tp=2, weights="fp8")
VLLM: dict[str, Any] = {
    "model_id": "meta-llama/Llama-3.1-8B", "backend": "vllm", "duration": 100.0, "completed": 500, "failed": 0,
    "total_input_tokens": 500_000, "total_output_tokens": 100_000, "mean_ttft_ms": 80.0, "mean_tpot_ms": 9.0,
    "mean_e2el_ms": 2000.0, "max_concurrency": 16, "request_rate": "inf",
}  # fmt: skip
AIPERF: dict[str, Any] = {
    "time_to_first_token": {"unit": "ms", "avg": 80.0},
    "inter_token_latency": {"unit": "ms", "avg": 9.0},
    "request_latency": {"unit": "s", "avg": 2.0},
    "request_throughput": {"unit": "requests/sec", "avg": 5.0},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 1000.0},
    "input_sequence_length": {"unit": "tokens", "avg": 1000.0},
    "output_sequence_length": {"unit": "tokens", "avg": 200.0},
}
GUIDELLM = {
    "metadata": {"version": 2},
    "benchmarks": [
        {"metrics": {name: {"successful": {"mean": value}} for name, value in {
            "prompt_token_count": 1000.0, "output_token_count": 200.0, "time_to_first_token_ms": 80.0,
            "inter_token_latency_ms": 9.0, "request_concurrency": 10.0, "output_tokens_per_second": 1000.0}.items()}},
    ],
}  # fmt: skip


def read(folder: Path, *objects: object, name: str = "r.json", deployment: Deployment = DEPLOYMENT) -> list[Point]:
    (folder / name).write_text("\n".join(json.dumps(item) for item in objects))
    return read_results(folder / name, deployment)


def check(point: Point, concurrency: float) -> None:
    assert (point.isl, point.osl, point.concurrency) == (1000, 200, concurrency)
    assert point.extra["ttft_ms"] == "80.0" and point.extra["tpot_ms"] == "9.0"
    assert point.extra["output_tok_s_per_gpu"] == "500.0"  # 1000 tokens/s on two GPUs
    assert (point.gpu, point.pool.tp, point.weights) == ("h100-sxm", 2, "fp8")


def test_vllm_bench_serve(tmp_path: Path) -> None:
    (point,) = read(tmp_path, VLLM)
    check(point, 16)
    assert (point.model, point.engine, point.statistic) == ("meta-llama/Llama-3.1-8B", "vllm", "mean")


def test_an_open_loop_is_read_at_its_mean_concurrency(tmp_path: Path) -> None:
    (point,) = read(tmp_path, VLLM | {"max_concurrency": None, "request_rate": 5.0})
    assert point.concurrency == pytest.approx(5 * 2)  # Little's law: 5 requests/s that stay 2 s
    (capped,) = read(tmp_path, VLLM | {"max_concurrency": 512, "request_rate": 5.0})
    assert capped.concurrency == point.concurrency  # the cap was never reached
    (bare,) = read(tmp_path, VLLM | {"max_concurrency": None, "request_rate": 5.0, "mean_e2el_ms": None})
    assert bare.concurrency == pytest.approx(5 * (0.080 + 199 * 0.009))  # what vLLM saves unless asked for more


def test_sglang_writes_a_line_per_run_and_may_have_medians_only(tmp_path: Path) -> None:
    run = {k.replace("mean_", "median_"): v for k, v in VLLM.items()} | {"backend": "sglang"}
    first, second = read(tmp_path, run, run | {"max_concurrency": 32}, name="r.jsonl")
    assert (first.engine, first.statistic, second.concurrency) == ("sglang", "p50", 32)


def test_aiperf_and_genai_perf_carry_units(tmp_path: Path) -> None:
    options = Deployment(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", tp=2, weights="fp8")
    (point,) = read(tmp_path, AIPERF, deployment=options)
    check(point, 10)
    in_seconds = AIPERF | {"time_to_first_token": {"unit": "s", "avg": 0.08}}
    assert float(read(tmp_path, in_seconds, deployment=options)[0].extra["ttft_ms"]) == pytest.approx(80)


def test_guidellm(tmp_path: Path) -> None:
    options = Deployment(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", tp=2, weights="fp8")
    (point,) = read(tmp_path, GUIDELLM, deployment=options)
    check(point, 10)


def test_a_points_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,model,gpu,mode,isl,osl,concurrency,tpot_ms\na,meta-llama/Llama-3.1-8B,h100-sxm,aggregated,9,9,2,8\n")
    (point,) = read_results(path, Deployment())
    assert point.extra["tpot_ms"] == "8"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (VLLM | {"failed": 3}, "3 requests failed beside 500"),
        (VLLM | {"total_input_tokens": 0}, "total_input_tokens is 0"),
        (VLLM | {"mean_tpot_ms": None}, "mean_tpot_ms is None"),
        (VLLM | {"failed": None, "num_prompts": 510}, "10 requests failed beside 500"),
        (AIPERF | {"output_token_throughput": {"unit": "tokens/min", "avg": 6e4}}, "unit 'tokens/min'"),
        ({"benchmarks": [{"metrics": None}]}, "prompt_token_count: mean is None"),
        ({"benchmarks": [{"metrics": {"prompt_token_count": [1]}, "request_totals": 5}]}, "prompt_token_count"),
        (AIPERF | {"inter_token_latency": {"unit": "fortnights", "avg": 1}}, "unit 'fortnights'"),
        (AIPERF | {"inter_token_latency": None}, "no inter_token_latency"),
        (AIPERF, "does not say which model"),
        ({"speed": 3}, "not the output of a known load generator"),
        ([1, 2], "not the output of a known load generator"),
    ],
)
def test_what_would_mislead_is_refused(tmp_path: Path, result: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, result)
