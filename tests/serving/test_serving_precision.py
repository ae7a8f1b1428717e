"""What engines do when nobody names a cache precision."""

from __future__ import annotations

import pytest

from planner.architecture.catalog import load_model
from planner.catalog.load import load_hardware
from planner.serving.engine import load_engine
from planner.serving.precision import kv_default


@pytest.mark.parametrize(
    ("model", "weights", "engine", "gpu", "expected"),
    [
        ("meta-llama/Llama-3.1-70B", "bf16", "vllm", "h100-sxm", "bf16"),
        ("meta-llama/Llama-3.1-70B", "fp8", "vllm", "h100-sxm", "bf16"),
        ("meta-llama/Llama-3.1-70B", "fp8", "trtllm", "h100-sxm", "fp8"),  # its fp8 checkpoints quantise the cache
        ("meta-llama/Llama-3.1-70B", "fp4", "vllm", "h100-sxm", "fp8"),  # requantised: brings scales of an fp8 cache
        ("meta-llama/Llama-3.1-70B", "fp8", "vllm", "b200-sxm", "fp8"),  # what deployments on Blackwell name
        ("openai/gpt-oss-120b", "fp4", "vllm", "h100-sxm", "bf16"),  # published in 4 bits, without them
    ],
)
def test_an_fp8_cache_comes_with_requantised_checkpoints_and_with_blackwell(
    model: str, weights: str, engine: str, gpu: str, expected: str
) -> None:
    accelerator = load_hardware().accelerator(gpu)
    assert kv_default(load_model(model), weights, load_engine(engine), accelerator) == expected


def test_a_version_belongs_to_an_era_of_its_own_engine_only() -> None:
    # 0.5 is a vLLM of 2024, but an SGLang of late 2025
    assert load_engine("vllm", version="0.5.4").layer_gap > load_engine("vllm").layer_gap
    assert load_engine("sglang", version="0.5.4").layer_gap == load_engine("sglang").layer_gap
