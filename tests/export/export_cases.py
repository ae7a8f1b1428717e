"""Plan files built by hand, for every mode, size and name."""

from __future__ import annotations

from typing import Any

from planner.plan import PlanFile

LATENCY = {"mean": 30.0, "p50": 30.0, "p90": 33.0, "p95": 35.0, "p99": 40.0}
PERFORMANCE = {
    "output_tok_s": 1000.0, "output_tok_s_per_gpu": 125.0, "request_rate": 1.0,
    "ttft_ms": LATENCY, "tpot_ms": LATENCY, "e2e_ms": LATENCY,
}  # fmt: skip
HOSTILE = (
    "a'; touch pwned; '", 'quote"d', "line\nbreak: yes\n- x", "../../etc/passwd", "<script>alert(1)</script>",
    "🦙/llama 🦙", "$(touch pwned)", "`touch pwned`", "{{ .Values.x }}", "${HOME}", "back\\slash", "# no comment",
    "org/" + "x" * 300, "a | b", "~", "null", "%s", "\u2028sep",
)  # fmt: skip


def pool(role: str = "aggregated", gpu: str = "h100-sxm", **changes: Any) -> dict[str, Any]:
    """Return a pool; ``tp``, ``attention_dp``, ``pp``, ``ep`` and ``cp`` go into its layout."""
    widths = {name: changes.pop(name, 1) for name in ("tp", "attention_dp", "pp", "ep", "cp")}
    memory = {"weights_gib": 20.0, "kv_gib": 20.0, "activations_gib": 2.0, "capacity_gib": 79.6}
    return {
        "role": role, "gpu": gpu, "replicas": 2, "layout": widths, "weights": "bf16", "kv": "bf16", "max_batch": 64,
        "running_batch": 20.0, "engine": "vllm", "memory": memory, **changes,
    }  # fmt: skip


def plan_file(*pools: dict[str, Any], model: str = "meta-llama/Llama-3.1-70B", mode: str | None = None) -> PlanFile:
    """Return a file with one plan of these pools."""
    pools = pools or (pool(tp=2),)
    roles = {p["role"] for p in pools}
    if mode is None:
        mode = "af" if roles & {"attention", "ffn"} else "pd" if roles & {"prefill", "decode"} else "aggregated"
    certificate = {"objective": "throughput", "value": 1, "bound": 1, "gap": 0, "status": "optimal", "solver": "none"}
    plan = {
        "rank": 1, "mode": mode, "gpus": {"h100-sxm": 4}, "gpus_total": 4, "gpus_idle": 0,
        "cost_usd_per_hour": 8.0, "usd_per_million_output_tokens": 2.0, "predicted": PERFORMANCE, "simulated": None,
        "notes": [], "pools": list(pools), "certificate": certificate, "basis": "calibrated", "band": {},
    }  # fmt: skip
    job = {"model": model, "workload": {"isl": 4000, "osl": 1000}, "slo": {"percentile": "p95"}}
    return PlanFile.model_validate(
        {
            "format_version": "1.0", "job": job, "plans": [plan],
            "search": {"candidates": 1, "operating_points": 1, "elapsed_s": 1, "rejected": [], "pareto": []},
            "provenance": {
                "planner_version": "0", "catalog_sha256": "c", "model_sha256": "m", "seed": 0, "argv": [],
                "created": "2026-01-01",
            },
        }
    )  # fmt: skip


PD = (pool("prefill", "l40s", tp=4), pool("decode", tp=8, replicas=3))
CASES = {
    "one GPU": plan_file(pool()),
    "one node": plan_file(pool(tp=8)),
    "fp8": plan_file(pool(tp=2, weights="fp8", kv="fp8")),
    "two nodes, stages": plan_file(pool(tp=8, pp=2)),
    "experts over two nodes": plan_file(pool(attention_dp=16, ep=16), model="deepseek-ai/DeepSeek-V3"),
    "attention dp in a node": plan_file(pool(tp=2, attention_dp=4, ep=8), model="deepseek-ai/DeepSeek-V3"),
    "prefill apart, two GPU types": plan_file(*PD),
    "prefill apart, wide decode": plan_file(
        pool("prefill", tp=8), pool("decode", attention_dp=32, ep=32, replicas=1), model="deepseek-ai/DeepSeek-V3"
    ),
    "two GPU types": plan_file(pool(tp=2), pool(gpu="mi300x", tp=1), mode="mixed"),
    "rack": plan_file(pool(gpu="gb200", tp=8)),
    "unlabelled GPU": plan_file(pool(gpu="ascend-910b", tp=8)),
    "local folder": plan_file(pool(), model="/models/my-model"),
}
