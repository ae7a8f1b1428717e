"""Compare whole iterations, draft passes, attention of several queries and grouped experts with timings on an H200.

No constant is fitted on these rows (described in steps_h200.py). Two predictions: kernels as such (engine factors 1, no
host), which is like for like, and with the factors that engines got on whole deployments.

    python benchmarks/score_steps.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from steps_h200 import PLAIN, REPLICA, Columns, checked_seconds, measured, on_gpu_only, seconds_of

from planner.cost.attention import attention_decode_seconds
from planner.cost.gemm import gemm_seconds
from planner.cost.moe import EVEN, active_experts, experts_seconds
from planner.job.speculating import Speculating
from planner.serving.drafting import Drafting
from planner.serving.replica import Replica
from planner.serving.work import Work

COMMON = {"accelerator": REPLICA.accelerator, "efficiency": REPLICA.efficiency}


def decode_step(replica: Replica, c: Columns) -> np.ndarray:
    return checked_seconds(replica, c["batch"], c["context"], c["q_len"])


def mixed_step(replica: Replica, c: Columns) -> np.ndarray:
    work = Work(c["batch"], np.nan_to_num(c["context"]), np.nan_to_num(c["chunk"]), np.nan_to_num(c["prior"]))
    return seconds_of(replica, work)


def draft_step(replica: Replica, c: Columns) -> np.ndarray:
    """The head that planner assumes, with the vocabulary and the fold (two hidden states) that were timed."""
    head = Drafting(Speculating(method="eagle")).speculation(replica, 1).draft
    assert head is not None
    seconds = np.zeros(c["batch"].shape)
    for vocab in np.unique(c["vocab"]):
        rows = c["vocab"] == vocab
        timed = on_gpu_only(replace(head, model=replace(head.model, vocab=int(vocab))))
        seconds[rows] = checked_seconds(timed, *(c[name][rows] for name in ("batch", "context", "q_len")))
    hidden = replica.model.hidden
    return seconds + gemm_seconds(c["batch"] * c["q_len"], hidden, 2 * hidden, math="bf16", launch=0.0, **COMMON)


def attention(replica: Replica, c: Columns) -> np.ndarray:
    """Without its launch, which the product books in the gaps of a layer."""
    seconds = attention_decode_seconds(
        c["batch"], c["context"], 32, 8, 128.0, 128.0, queries=c["q_len"], kv_bytes=2.0, launch=0.0, **COMMON
    )
    return seconds * replica.engine.attention_slowdown


def experts(replica: Replica, c: Columns) -> np.ndarray:
    """With the launch that was fitted to fused kernels; what they also do is permute tokens and sum outputs."""
    seconds = experts_seconds(c["batch"], 2048, 768, 128, 8, math="bf16", evenness=EVEN, **COMMON)
    return seconds * replica.engine.expert_slowdown


MODELS: dict[str, tuple[Callable[[Replica, Columns], np.ndarray], tuple[str, ...]]] = {
    "decode_step": (decode_step, ("q_len", "batch", "context")),
    "attention": (attention, ("q_len", "batch")),
    "mixed_step": (mixed_step, ("chunk", "batch", "prior")),
    "draft_step": (draft_step, ("batch", "q_len", "vocab")),
    "moe_experts": (experts, ("batch",)),
}
"""How each operator is predicted, and by which columns its errors are shown."""
BANDS = {"moe_experts": (1, 8, 64, 512, 1024, 2048, 4096, 8192)}
"""Where a column has too many values: the largest of each band."""


def line(label: str, *ratios: np.ndarray) -> None:
    cells = (f"{np.median(r):8.2f} {100 * np.mean(np.abs(r - 1)):8.1f} %" for r in ratios)
    print(f"{label:34s} {len(ratios[0]):4d}", *cells)


def main() -> None:
    """Print predicted/measured (median) and the mean absolute error by operator, and by what the step holds."""
    print(f"{'':34s} {'n':>4s} {'kernels as such':>19s} {'engine factors':>19s}")
    kinds = on_gpu_only(REPLICA, **PLAIN), on_gpu_only(REPLICA)
    for operator, kernel, c in measured():
        if operator not in MODELS:
            continue
        predict, by = MODELS[operator]
        ratios = [predict(kind, c) / c["seconds"] for kind in kinds]
        line(f"{operator}, {kernel}", *ratios)
        for name in by if "+" not in kernel else ():
            column = c[name][~np.isnan(c[name])]
            ends = np.array(BANDS.get(operator, np.unique(column)))
            for end, band in zip(ends, np.arange(len(ends)), strict=True):
                rows = np.searchsorted(ends, c[name]) == band
                line(f"    {name} {'to ' if operator in BANDS else ''}{end:.0f}", *(r[rows] for r in ratios))
        if operator == "moe_experts":
            reached = active_experts(128, 8, c["batch"]) / c["active"]
            print(f"    experts reached by even routing: {100 * np.mean(np.abs(reached - 1)):.1f} % off in the mean")


if __name__ == "__main__":
    main()
