"""Sentences of an explanation say what limits a pool."""

from __future__ import annotations

from planner.plan import Pool
from planner.report import why


def test_a_batch_that_the_engine_bounds_is_not_laid_to_the_cache() -> None:
    memory = {"weights_gib": 1.0, "kv_gib": 1.0, "activations_gib": 1.0, "capacity_gib": 80.0}
    pool = Pool.model_validate(
        {
            "role": "decode", "gpu": "h100-sxm", "replicas": 1, "weights": "bf16", "kv": "bf16", "max_batch": 64,
            "layout": dict.fromkeys(("tp", "attention_dp", "pp", "ep", "cp"), 1),
            "running_batch": 63.5, "engine": "vllm", "memory": memory,
        }
    )  # fmt: skip
    assert "the engine runs at most 64 requests" in why.cache(pool, True, 64.0)
    assert why.cache(pool, True, 64.0).endswith("that limit binds")
    assert "the KV cache has room for 64 requests" in why.cache(pool, True, 1024.0)
    assert why.cache(pool, True, 1024.0).endswith("memory binds")
