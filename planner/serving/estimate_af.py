"""Predict fixed configurations of attention workers and feed-forward workers (decode only)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from planner.job.points import Point
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.estimated import Estimate, does_not_fit, held_bytes
from planner.serving.ffn_worker import worker_problem
from planner.serving.halves import attention_half, ffn_half, split_problem
from planner.serving.layout import Array, Layout
from planner.serving.legality import ShapeProblem, shape_problem
from planner.serving.lengths import Lengths
from planner.serving.optional_columns import on_network
from planner.serving.replica import Replica

_COLUMNS = (
    "attention_workers", "attention_tp", "attention_attention_dp", "ffn_workers", "ffn_tp", "ffn_ep", "micro_batches",
)  # fmt: skip
GROUPED_BY = ("attention_gpu", "ffn_gpu", "attention_weights", "ffn_weights", "nic_gbps")
"""Columns that make two rows differ in more than counts."""


def estimate_attention_ffn(points: Sequence[Point], replica_of: Callable[[Point], Replica]) -> list[Estimate]:
    """Predict rows that share model, GPUs and precisions. Raises PlannerError for unknown names.

    ``concurrency`` requests are in flight over all attention workers; their prompts arrive with their KV, so that there
    is no TTFT.
    """
    found: list[Estimate | None] = [None] * len(points)
    counts: dict[int, list[float]] = {}
    for index, point in enumerate(points):
        try:
            counts[index] = [_count(point, name) for name in _COLUMNS]
        except ValueError as wrong:
            found[index] = Estimate(point.id, "unsupported", str(wrong))
    if counts:
        split = _split(points[next(iter(counts))], replica_of)
        problem = split_problem(split.attention.model)
        kept: dict[int, list[float]] = {}
        for index, row in counts.items():
            why = problem or _illegal(split, row)
            if why is None:
                kept[index] = row
            else:
                found[index] = Estimate(points[index].id, "unsupported", str(why))
        for index, estimate in zip(kept, _rows(split, [points[i] for i in kept], list(kept.values())), strict=True):
            found[index] = estimate
    return [estimate for estimate in found if estimate is not None]


def _count(point: Point, name: str) -> float:
    text = point.extra.get(name) or ("3" if name == "micro_batches" else "1")
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a whole number") from None
    if not (value >= 1 and value == int(value)):
        raise ValueError(f"{name} is {text!r}; it must be a whole number of at least 1")
    return value


def _split(point: Point, replica_of: Callable[[Point], Replica]) -> AttentionFfn:
    """Replicas of both sides; empty columns fall back to ``gpu`` and ``weights``, which may name both."""

    def side(role: str) -> Replica:
        asked = replace(
            point,
            gpu=point.extra.get(f"{role}_gpu") or point.gpu,
            weights=(point.extra.get(f"{role}_weights") or point.weights).lower(),
        )
        return on_network(point, replica_of(asked))

    return AttentionFfn(side("attention"), side("ffn"))


def _illegal(split: AttentionFfn, row: Sequence[float]) -> ShapeProblem | None:
    _, tp, _, _, ffn_tp, ep, _ = (int(x) for x in row)
    attention = shape_problem(attention_half(split.attention).model, Layout(tp))
    return attention or worker_problem(ffn_half(split.ffn).model, ffn_tp, ep)


def _rows(split: AttentionFfn, points: Sequence[Point], rows: list[list[float]]) -> Iterator[Estimate]:
    if not points:
        return
    a, tp, dp, f, ffn_tp, ep, m = np.array(rows).T
    lengths = Lengths(np.array([p.isl for p in points]), np.array([p.osl for p in points]))
    requests = np.array([p.concurrency for p in points])
    m = np.minimum(m, np.maximum(np.floor(requests), 1.0))  # a micro-batch holds whole requests
    workers = Workers(a, tp, dp, f, ep, np.maximum(ffn_tp, ep), m)
    held, blocks = split.memories(workers, lengths)
    per_rank: Array = np.maximum(requests / (a * dp), np.minimum(requests, 1.0))
    tpot = split.token_seconds(workers, requests, lengths)
    for i, point in enumerate(points):
        # Someone who fixes the batch may fill the memory further than engines do by themselves.
        most = (held.capacity - held.weights[i] - held.activations[i]) / np.ravel(held.request)[i]
        if not most >= 1.0:
            yield does_not_fit(point, held, i, "an attention GPU ")
        elif not blocks.fits[i]:
            yield does_not_fit(point, blocks, i, "a feed-forward GPU ")
        elif per_rank[i] > most:
            have = f"{np.floor(most):.0f} requests fit on an attention rank"
            yield Estimate(point.id, "infeasible", f"{have}, {per_rank[i]:.0f} asked")
        else:
            rate = requests[i] / tpot[i] / workers.gpus[i]
            fullest = max(held_bytes(held, i, float(per_rank[i])), held_bytes(blocks, i, 0.0))
            yield Estimate(
                point.id, "ok", "", None, float(tpot[i]), float(rate), float(tpot[i]) * point.osl, fullest
            )  # fmt: skip
