"""Compare the cost model with kernels timed on a GPU that no constant was fitted on.

``benchmarks/data/kernels_h200.csv``: our own timings on one H200 (700 W, driver 580, torch 2.11 with CUDA 13,
FlashInfer 0.5.3), 2026-11-27. Each kernel ran back to back in one captured CUDA graph over rotating buffers larger
than the L2 cache, so weights and caches come cold from memory as in serving and a launch costs what it costs in a
graph; the median of three replays counts. Products are cuBLASLt's, decode attention is FlashInfer's paged kernel on
tensor cores, prefill cuDNN's and FlashAttention-2's. ``decode_step`` is a whole iteration of a Llama-3.1-8B-shaped
model (32 layers, head, argmax; random weights, 16 tokens a page) in one graph: what an engine runs on the GPU,
without its host. Steps with drafts, chunks and experts: score_steps.py.

    python benchmarks/score_kernels.py
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from planner.api import Catalogs  # noqa: E402
from planner.cost.attention import attention_decode_seconds, attention_prefill_seconds  # noqa: E402
from planner.cost.gemm import gemm_seconds  # noqa: E402
from planner.serving.iteration import iteration_ledger  # noqa: E402
from planner.serving.layout import Layout, Layouts  # noqa: E402
from planner.serving.work import Work  # noqa: E402

Columns = dict[str, np.ndarray]
REPLICA = Catalogs().replica("meta-llama/Llama-3.1-8B", "h200-sxm", "bf16", "bf16", "vllm")
COMMON = {"accelerator": REPLICA.accelerator, "efficiency": REPLICA.efficiency, "launch": 0.0}


def product(dtype: str, c: Columns) -> np.ndarray:
    return gemm_seconds(c["m"], c["n"], c["k"], math=dtype, quantise_activations=False, **COMMON)


def attention(_: str, c: Columns) -> np.ndarray:
    return attention_decode_seconds(
        c["batch"], c["context"], c["heads"], c["kv_heads"], 128.0, 128.0, kv_bytes=2.0, **COMMON
    )


def prefill(_: str, c: Columns) -> np.ndarray:
    shape = (c["context"], 0.0, c["batch"], c["heads"], c["kv_heads"], 128.0, 128.0)
    return attention_prefill_seconds(*shape, math="bf16", kv_bytes=2.0, **COMMON)


def decode_step(_: str, c: Columns) -> np.ndarray:
    """The iteration without the host, which did not run in the graph."""
    ledger = iteration_ledger(REPLICA, Layouts.of([Layout()], column=False), Work(c["batch"], c["context"]))
    return np.asarray(ledger.total - ledger.seconds["host"])


MODELS: dict[str, Callable[[str, Columns], np.ndarray]] = {
    "gemm": product,
    "attention_decode": attention,
    "attention_prefill_cudnn": prefill,
    "attention_prefill_flash2": prefill,
    "decode_step": decode_step,
}


def main() -> None:
    """Print the errors by operator, and by how much work a call does."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with (HERE / "data" / "kernels_h200.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            groups[row["operator"], row["dtype"]].append(row)
    print(f"{'operator':26s} {'dtype':10s} {'n':>4s} {'mean error %':>12s} {'predicted/measured':>19s}   over 40 us")
    for (operator, dtype), rows in groups.items():
        measured = np.array([float(row["seconds"]) for row in rows])
        if operator not in MODELS or (operator, dtype) == ("attention_decode", "fp8"):
            print(f"{operator:26s} {dtype:10s} {len(rows):4d} {'median':>12s} {np.median(measured) * 1e6:16.1f} us")
            continue
        names = [name for name in rows[0] if name not in ("operator", "dtype", "seconds") and rows[0][name]]
        columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
        ratio = MODELS[operator](dtype, columns) / measured
        long = measured > 40e-6
        error = 100 * np.mean(np.abs(ratio - 1))
        tail = f"{100 * np.mean(np.abs(ratio[long] - 1)):.1f} % ({int(long.sum())})"
        print(f"{operator:26s} {dtype:10s} {len(rows):4d} {error:12.1f} {np.median(ratio):19.2f}   {tail}")


if __name__ == "__main__":
    main()
