"""What engines do when nobody names a cache precision."""

from __future__ import annotations

import pytest

from planner.architecture.catalog import load_model
from planner.serving.engine import load_engine
from planner.serving.precision import kv_default


@pytest.mark.parametrize(
    ("model", "weights", "engine", "expected"),
    [
        ("meta-llama/Llama-3.1-70B", "bf16", "vllm", "bf16"),
        ("meta-llama/Llama-3.1-70B", "fp8", "vllm", "bf16"),
        ("meta-llama/Llama-3.1-70B", "fp8", "trtllm", "fp8"),  # its fp8 checkpoints quantise the cache
        ("meta-llama/Llama-3.1-70B", "fp4", "vllm", "fp8"),  # requantised: brings scales of an fp8 cache
        ("openai/gpt-oss-120b", "fp4", "vllm", "bf16"),  # published in 4 bits, without them
    ],
)
def test_requantised_four_bit_checkpoints_bring_an_fp8_cache(
    model: str, weights: str, engine: str, expected: str
) -> None:
    assert kv_default(load_model(model), weights, load_engine(engine)) == expected


def test_a_version_belongs_to_an_era_of_its_own_engine_only() -> None:
    # 0.5 is a vLLM of 2024, but an SGLang of late 2025
    assert load_engine("vllm", version="0.5.4").layer_gap > load_engine("vllm").layer_gap
    assert load_engine("sglang", version="0.5.4").layer_gap == load_engine("sglang").layer_gap
