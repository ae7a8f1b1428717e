"""Predict fixed configurations of a prefill pool and a decode pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from planner.job.points import Point, PoolPoint
from planner.serving.estimated import Estimate, does_not_fit, held_bytes
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.pd import Role, SplitLoop, closed_split
from planner.serving.replica import Replica


def estimate_splits(points: Sequence[Point], replica_of: Callable[[Point], Replica]) -> list[Estimate]:
    """Predict rows that share everything but layouts, counts and load. Raises PlannerError for unknown names.

    Optional columns ``prefill_gpu`` and ``decode_gpu`` put the pools on other GPUs than ``gpu``.
    """
    first = points[0]
    replicas = [
        replica_of(replace(first, gpu=first.extra.get(f"{role}_gpu") or first.gpu)) for role in ("prefill", "decode")
    ]
    pools = [(_pool(p.prefill), _pool(p.decode)) for p in points]
    problems = [
        shape_problem(replicas[0].model, _layout(a)) or shape_problem(replicas[1].model, _layout(b)) for a, b in pools
    ]
    good = [index for index, problem in enumerate(problems) if problem is None]
    result = [Estimate(p.id, "unsupported", str(problem)) for p, problem in zip(points, problems, strict=True)]
    if good:
        roles = [_role(replica, [pools[i][side] for i in good]) for side, replica in enumerate(replicas)]
        rows = _rows(roles[0], roles[1], [points[i] for i in good])
        for index, estimate in zip(good, rows, strict=True):
            result[index] = estimate
    return result


def _pool(pool: PoolPoint | None) -> PoolPoint:
    return pool or PoolPoint()


def _layout(pool: PoolPoint) -> Layout:
    return Layout(pool.tp, pool.attention_dp, pool.pp, pool.ep, pool.cp)


def _role(replica: Replica, pools: Sequence[PoolPoint]) -> Role:
    layouts = Layouts.of([_layout(pool) for pool in pools], column=False)
    return Role(replica, layouts, np.array([float(pool.workers) for pool in pools]))


def _rows(prefill: Role, decode: Role, points: Sequence[Point]) -> Iterator[Estimate]:
    lengths = Lengths(np.array([p.isl for p in points]), np.array([p.osl for p in points]))
    loop = closed_split(prefill, decode, np.array([p.concurrency for p in points]), lengths)
    gpus = prefill.gpus + decode.gpus
    tests = {statistic: loop.load_test(statistic) for statistic in {p.statistic for p in points}}
    for i, point in enumerate(points):
        if not loop.prefill.memory.fits[i]:
            yield does_not_fit(point, loop.prefill.memory, i, "a prefill worker ")
        elif not loop.memory.fits[i]:
            yield does_not_fit(point, loop.memory, i, "a decode worker ")
        else:
            ttft, rate = tests[point.statistic]
            yield _estimate(point, loop, i, float(ttft[i]), float(rate[i]) * point.osl / float(gpus[i]))


def _estimate(point: Point, loop: SplitLoop, i: int, ttft: float, rate: float) -> Estimate:
    tpot = float(loop.mean_tpot[i])
    held = held_bytes(loop.memory, i, float(loop.batch[i]))
    return Estimate(point.id, "ok", "", ttft, tpot, rate, ttft + max(point.osl - 1, 0) * tpot, held)
