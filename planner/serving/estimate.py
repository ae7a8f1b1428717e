"""Predict many fixed configurations at once: rows that share model, GPU, precision and engine run as one array."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planner.errors import PlannerError
from planner.job.points import Point
from planner.serving.closed_loop import closed_loop, static_batch
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory
from planner.serving.replica import Replica
from planner.units import GIB, format_bytes

MODES = ("aggregated", "static")
ReplicaOf = Callable[[Point], Replica]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Prediction of one point. Times in seconds; ``status`` ok, infeasible (does not fit) or unsupported, with
    ``reason``.
    """

    id: str
    status: str
    reason: str = ""
    ttft: float | None = None
    tpot: float | None = None
    output_rate_per_gpu: float | None = None
    e2e: float | None = None
    memory: float | None = None

    def row(self) -> dict[str, object]:
        """Return the columns of the stable output, in the units their names carry."""

        def scaled(value: float | None, factor: float) -> float | None:
            return None if value is None else float(f"{value * factor:.6g}")

        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "ttft_ms": scaled(self.ttft, 1e3),
            "tpot_ms": scaled(self.tpot, 1e3),
            "output_tok_s_per_gpu": scaled(self.output_rate_per_gpu, 1.0),
            "e2e_latency_ms": scaled(self.e2e, 1e3),
            "memory_gib_per_gpu": scaled(self.memory, 1 / GIB),
        }


def estimate_points(points: Sequence[Point], replica_of: ReplicaOf) -> list[Estimate]:
    """Predict every point, in order. ``replica_of`` builds the replica of a point; what it refuses becomes
    ``unsupported``.
    """
    found: dict[int, Estimate] = {}
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        problem = point.problem or _unsupported(point)
        if problem is not None:
            found[index] = Estimate(point.id, "unsupported", problem)
            continue
        groups[_replica_key(point)].append(index)
    for rows in groups.values():
        members = [points[index] for index in rows]
        found.update(zip(rows, _group(members, replica_of), strict=True))
    return [found[index] for index in range(len(points))]


def _replica_key(point: Point) -> tuple[object, ...]:
    return (point.model, point.gpu, point.weights, point.kv, point.engine, point.engine_version, point.date, point.mode)


def _unsupported(point: Point) -> str | None:
    if point.mode not in MODES:
        return f"mode {point.mode!r} is not modelled; modes: {', '.join(MODES)}"
    return None


def _group(points: Sequence[Point], replica_of: ReplicaOf) -> list[Estimate]:
    try:
        replica = replica_of(points[0])
    except PlannerError as problem:
        return [Estimate(point.id, "unsupported", str(problem)) for point in points]
    layouts = [Layout(p.pool.tp, p.pool.attention_dp, p.pool.pp, p.pool.ep) for p in points]
    problems = [shape_problem(replica.model, layout) for layout in layouts]
    good = [index for index, problem in enumerate(problems) if problem is None]
    result = [Estimate(p.id, "unsupported", str(problem)) for p, problem in zip(points, problems, strict=True)]
    evaluate = _static if points[0].mode == "static" else _aggregated
    rows = evaluate(replica, [points[i] for i in good], Layouts.of([layouts[i] for i in good], column=False))
    for index, estimate in zip(good, rows, strict=True):
        result[index] = estimate
    return result


def _lengths(points: Sequence[Point]) -> Lengths:
    return Lengths(np.array([p.isl for p in points]), np.array([p.osl for p in points]))


def _share(points: Sequence[Point], layouts: Layouts) -> np.ndarray:
    """Requests in flight per attention rank."""
    return np.array([p.concurrency / p.pool.workers for p in points]) / layouts.attention_dp


def _aggregated(replica: Replica, points: Sequence[Point], layouts: Layouts) -> Iterator[Estimate]:
    point = closed_loop(replica, layouts, _share(points, layouts), _lengths(points))
    ttft = {s: point.ttft(s) for s in {p.statistic for p in points}}
    tpot = point.tpot("mean")
    for i, p in enumerate(points):
        if not point.memory.fits[i]:
            yield _does_not_fit(p, point.memory, i)
            continue
        rate = point.rate[i] * p.osl / layouts.gpus[i]
        first = float(ttft[p.statistic][i])
        yield Estimate(
            p.id, "ok", "", first, float(tpot[i]), float(rate), first + max(p.osl - 1, 0) * float(tpot[i]),
            _held(point.memory, i, float(point.steps.batch[i])),
        )  # fmt: skip


def _static(replica: Replica, points: Sequence[Point], layouts: Layouts) -> Iterator[Estimate]:
    share = _share(points, layouts)
    batch = static_batch(replica, layouts, share, _lengths(points))
    for i, p in enumerate(points):
        if not batch.memory.fits[i]:
            yield _does_not_fit(p, batch.memory, i)
            continue
        rate = batch.rate[i] * p.osl / layouts.gpus[i]
        held = _held(batch.memory, i, min(float(share[i]), float(batch.memory.slots[i])))
        yield Estimate(
            p.id,
            "ok",
            "",
            float(batch.ttft[i]),
            float(batch.tpot[i]),
            float(rate),
            float(batch.duration[i]),
            held,
        )


def _held(memory: Memory, index: int, requests: float) -> float:
    return float(memory.weights[index] + memory.activations[index] + memory.request[index] * requests)


def _does_not_fit(point: Point, memory: Memory, index: int) -> Estimate:
    need = memory.capacity - float(memory.room[index]) + float(memory.longest[index])
    reason = (
        f"needs {format_bytes(need)} per GPU for weights, reserve and one request, has {format_bytes(memory.capacity)}"
    )
    return Estimate(point.id, "infeasible", reason, memory=need)
