"""Whole steps timed on one H200, and the model without what did not run in their graphs.

``benchmarks/data/steps_h200.csv``: our own timings of 2026-11-27 (700 W, driver 580, torch 2.11 with CUDA 13,
FlashInfer 0.5.3, FlashAttention-3), method as in score_kernels.py: captured graphs over buffers larger than the L2
cache, median of three replays, no host. The model is shaped like Llama-3.1-8B (32 layers, 32 heads, 8 for
the cache), in bf16.

* ``decode_step``: an iteration of ``batch`` sequences with ``q_len`` = 1 + k tokens each, ``context`` keys with the
  new ones; head and argmax on all of them. Kernel ``fa3+cublas``: products of cuBLAS instead of cuBLASLt.
* ``attention``: its attention alone.
* ``mixed_step``: ``batch`` decodes beside a prompt's ``chunk`` behind ``prior`` tokens of its own.
* ``draft_step``: a pass of an EAGLE-like head: embedding, product that folds two hidden states, one layer, head over
  ``vocab`` tokens on all tokens, argmax.
* ``moe_experts``: two grouped products (torch) and silu of 128 experts of 2048 x 768, 8 a token, ``batch`` tokens
  routed evenly; ``active`` experts were reached. Permuting tokens is not in it.
* ``accept``: greedy acceptance as plain torch operators.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from planner.api import Catalogs  # noqa: E402
from planner.serving.iteration import iteration_seconds  # noqa: E402
from planner.serving.layout import Layout, Layouts  # noqa: E402
from planner.serving.replica import Replica  # noqa: E402
from planner.serving.work import Work  # noqa: E402

Columns = dict[str, np.ndarray]
ONE_GPU = Layouts.of([Layout()], column=False)
REPLICA = Catalogs().replica("meta-llama/Llama-3.1-8B", "h200-sxm", "bf16", "bf16", "vllm")
WITHOUT_HOST = {"step": 0.0, "sequence": 0.0, "draft_step": 0.0}
PLAIN = {"dense_slowdown": 1.0, "attention_slowdown": 1.0, "expert_slowdown": 1.0, "chunk_slowdown": 1.0}


def on_gpu_only(replica: Replica, **factors: float) -> Replica:
    """The replica without the work of its host, which did not run in the graphs."""
    return replace(replica, engine=replace(replica.engine, **WITHOUT_HOST, **factors))


def measured() -> Iterator[tuple[str, str, Columns]]:
    """Operator, kernel and columns (NaN where empty) of each group of rows."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    with (HERE / "data" / "steps_h200.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            groups.setdefault((row["operator"], row["kernel"]), []).append(row)
    for (operator, kernel), rows in groups.items():
        names = [name for name in rows[0] if name not in ("operator", "kernel")]
        yield operator, kernel, {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def seconds_of(replica: Replica, work: Work) -> np.ndarray:
    """Seconds of iterations on one GPU. A pass drafts one length, so work whose rows differ in it goes in parts."""
    return np.asarray(iteration_seconds(replica, ONE_GPU, work))


def checked_seconds(replica: Replica, batch: np.ndarray, context: np.ndarray, q_len: np.ndarray) -> np.ndarray:
    """Seconds of iterations that check ``q_len - 1`` drafted tokens of each sequence."""
    seconds = np.zeros(batch.shape)
    for length in np.unique(q_len):
        rows = q_len == length
        seconds[rows] = seconds_of(replica, Work(batch[rows], context[rows], drafted=float(length) - 1.0))
    return seconds
