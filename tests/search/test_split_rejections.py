"""Why no split of two pools works: the ledger names what is missed, and by how much."""

from __future__ import annotations

from typing import Any

import pytest
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.search.search import search
from planner.serving.engine import load_engine

CASES: dict[str, tuple[int, dict[str, Any], str, str]] = {
    "no limit on TPOT is kept": (4, {"tpot": 1e-3}, "misses tpot even when idle", "a limit of 1.00 ms"),
    "nor one on end-to-end time": (4, {"e2e": 0.1}, "misses e2e even when idle", "a limit of 100 ms"),
    "no first token in time": (4, {"ttft": 1e-3}, "split misses ttft even when idle", "within the limits"),
    "one GPU": (1, {}, "fleet too small for a split", "needs 2 GPUs for a replica of each, has 1"),
    "a rate beyond all": (4, {"rate": 1e4}, "fleet too small to split", "needs 1e+04 requests/s"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_split_that_cannot_be_says_what_it_misses(case: str) -> None:
    gpus, changes, reason, near = CASES[case]
    asked = job(2000, 200, modes=("pd",), weights=("bf16",), kv=("bf16",), **changes)
    found = search(load_model("meta-llama/Llama-3.1-8B"), load_engine("vllm"), [supply("h100-sxm", gpus)], asked)
    assert not found.ranked
    said = {row[0]: row[2] for row in found.rejections.rows()}
    assert near in said[reason]
    assert not any("ttft" in name for name in said) or reason == "split misses ttft even when idle"


def test_a_prompt_worker_without_room_for_its_iterations_is_named() -> None:
    """16 GB of weights on 24 GB: room for iterations of 8192 tokens, not for those of a prefill worker."""
    asked = job(12_000, 200, modes=("pd",), weights=("bf16",), kv=("bf16",))
    found = search(load_model("meta-llama/Llama-3.1-8B"), load_engine("vllm"), [supply("l4", 2)], asked)
    said = {row[0]: row[2] for row in found.rejections.rows()}
    assert "prefill l4 tp1 bf16" in said["does not fit in memory as a prefill worker"]
    assert "16,384 prompt tokens" in said["does not fit in memory as a prefill worker"]
    assert "needs 3 GPUs for a replica of each, has 2" in said["fleet too small for a split"]


def test_attention_and_ffn_workers_that_are_too_slow_say_how_slow() -> None:
    asked = job(2000, 200, modes=("af",), weights=("bf16",), kv=("bf16",), tpot=1e-3)
    found = search(load_model("Qwen/Qwen3-30B-A3B"), load_engine("vllm"), [supply("h100-sxm", 24)], asked)
    said = {row[0]: row[2] for row in found.rejections.rows()}
    assert "has a limit of 1.00 ms" in said["attention-FFN split misses tpot even when idle"]
