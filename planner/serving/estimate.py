"""Predict many fixed configurations at once: rows that share model, GPU, precision and engine run as one array."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from planner.errors import PlannerError
from planner.job.points import Point
from planner.serving.closed_loop import closed_loop, static_batch
from planner.serving.estimate_af import GROUPED_BY, estimate_attention_ffn
from planner.serving.estimate_pd import estimate_splits
from planner.serving.estimated import Estimate, does_not_fit, held_bytes
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.optional_columns import number
from planner.serving.replica import Replica

MODES = ("aggregated", "static", "pd", "af")
ReplicaOf = Callable[[Point], Replica]


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
    columns = ("prefill_gpu", "decode_gpu", "kv_transfer", *GROUPED_BY)
    gpus = (point.gpu, *(point.extra.get(name, "") for name in columns))
    software = (point.engine, point.engine_version, point.date)
    return (point.model, gpus, point.weights, point.kv, *software, point.mode, point.speculate, point.tuning)


def _unsupported(point: Point) -> str | None:
    if point.mode not in MODES:
        return f"mode {point.mode!r} is not modelled; modes: {', '.join(MODES)}"
    try:
        _prefix_hit(point)
    except ValueError as wrong:
        return str(wrong)
    if point.speculate is None:
        return None
    staged = any(pool is not None and pool.pp > 1 for pool in (point.pool, point.prefill, point.decode))
    return "drafts need one pipeline stage" if staged else None


def _group(points: Sequence[Point], replica_of: ReplicaOf) -> list[Estimate]:
    try:
        if points[0].mode == "pd":
            return estimate_splits(points, replica_of)
        if points[0].mode == "af":
            return estimate_attention_ffn(points, replica_of)
        replica = replica_of(points[0])
    except PlannerError as problem:
        return [Estimate(point.id, "unsupported", str(problem)) for point in points]
    layouts = [Layout(p.pool.tp, p.pool.attention_dp, p.pool.pp, p.pool.ep, p.pool.cp) for p in points]
    problems = [shape_problem(replica.model, layout) for layout in layouts]
    good = [index for index, problem in enumerate(problems) if problem is None]
    result = [Estimate(p.id, "unsupported", str(problem)) for p, problem in zip(points, problems, strict=True)]
    evaluate = _static if points[0].mode == "static" else _aggregated
    if not good:
        return result
    rows = evaluate(replica, [points[i] for i in good], Layouts.of([layouts[i] for i in good], column=False))
    for index, estimate in zip(good, rows, strict=True):
        result[index] = estimate
    return result


def _prefix_hit(point: Point) -> float:
    """Share of the prompt that is in the cache already; ValueError says what is wrong with the column."""
    return number(point, "prefix_hit", 0.0, 0.0, 0.999)


def _lengths(points: Sequence[Point]) -> Lengths:
    isl = np.array([p.isl for p in points])
    return Lengths(isl, np.array([p.osl for p in points]), isl * np.array([_prefix_hit(p) for p in points]))


def _share(points: Sequence[Point], layouts: Layouts) -> np.ndarray:
    """Requests in flight per attention rank."""
    return np.array([p.concurrency / p.pool.workers for p in points]) / layouts.attention_dp


def _aggregated(replica: Replica, points: Sequence[Point], layouts: Layouts) -> Iterator[Estimate]:
    point = closed_loop(replica, layouts, _share(points, layouts), _lengths(points))
    tests = {s: point.load_test(s) for s in {p.statistic for p in points}}
    tpot = point.tpot("mean")
    for i, p in enumerate(points):
        if not point.memory.fits[i]:
            yield does_not_fit(p, point.memory, i)
            continue
        ttft, requests = tests[p.statistic]
        rate = requests[i] * p.osl / layouts.gpus[i]
        first = float(ttft[i])
        yield Estimate(
            p.id, "ok", "", first, float(tpot[i]), float(rate), first + max(p.osl - 1, 0) * float(tpot[i]),
            held_bytes(point.memory, i, float(point.steps.batch[i])),
        )  # fmt: skip


def _static(replica: Replica, points: Sequence[Point], layouts: Layouts) -> Iterator[Estimate]:
    share = _share(points, layouts)
    batch = static_batch(replica, layouts, share, _lengths(points))
    for i, p in enumerate(points):
        if not batch.memory.fits[i]:
            yield does_not_fit(p, batch.memory, i)
            continue
        rate = batch.rate[i] * p.osl / layouts.gpus[i]
        held = held_bytes(batch.memory, i, min(float(share[i]), float(batch.memory.slots[i])))
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
