"""Predict fixed configurations of a prefill pool and a decode pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.job.points import Point, PoolPoint
from planner.serving.estimated import Estimate, does_not_fit, held_bytes
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.optional_columns import number, on_network
from planner.serving.pd import Role, SplitLoop, closed_split
from planner.serving.replica import Replica
from planner.serving.transfer import PIECES, Pieces, TransferOptions


def estimate_splits(points: Sequence[Point], replica_of: Callable[[Point], Replica]) -> list[Estimate]:
    """Predict rows that share everything but layouts, counts and load. Raises PlannerError for unknown names.

    Optional columns: ``prefill_gpu`` and ``decode_gpu`` put the pools on other GPUs than ``gpu``; ``nic_gbps`` is the
    network of each GPU; ``kv_transfer`` (request, chunk, layer) and ``kv_compression`` say how the cache travels;
    ``prefix_hit`` is the share of prompt tokens that need no computing; ``decode_max_batch`` how many requests an
    attention rank of the decode pool admits.
    """
    first = points[0]
    replicas = [_replica(first, role, replica_of) for role in ("prefill", "decode")]
    pools = [(_pool(p.prefill), _pool(p.decode)) for p in points]
    problems = [
        shape_problem(replicas[0].model, _layout(a)) or shape_problem(replicas[1].model, _layout(b)) for a, b in pools
    ]
    good = [index for index, problem in enumerate(problems) if problem is None]
    result = [Estimate(p.id, "unsupported", str(problem)) for p, problem in zip(points, problems, strict=True)]
    for index in tuple(good):
        try:
            _Options.of(points[index])
        except ValueError as wrong:
            good.remove(index)
            result[index] = Estimate(points[index].id, "unsupported", str(wrong))
    if good:
        roles = [_role(replica, [pools[i][side] for i in good]) for side, replica in enumerate(replicas)]
        rows = _rows(roles[0], roles[1], [points[i] for i in good])
        for index, estimate in zip(good, rows, strict=True):
            result[index] = estimate
    return result


@dataclass(frozen=True, slots=True)
class _Options:
    """What a row says beyond layouts and load."""

    pieces: Pieces | None
    compression: float
    prefix_hit: float
    admitted: float

    @classmethod
    def of(cls, point: Point) -> _Options:
        """Read the optional columns; ValueError says what is wrong with one."""
        pieces = point.extra.get("kv_transfer") or None
        if pieces is not None and pieces not in PIECES:
            raise ValueError(f"kv_transfer is {pieces!r}; it must be one of {', '.join(PIECES)}")
        return cls(
            pieces,
            number(point, "kv_compression", 1.0, 1.0, np.inf),
            number(point, "prefix_hit", 0.0, 0.0, 0.999),
            number(point, "decode_max_batch", np.inf, 1.0, np.inf),
        )


def _replica(point: Point, role: str, replica_of: Callable[[Point], Replica]) -> Replica:
    return on_network(point, replica_of(replace(point, gpu=point.extra.get(f"{role}_gpu") or point.gpu)))


def _pool(pool: PoolPoint | None) -> PoolPoint:
    return pool or PoolPoint()


def _layout(pool: PoolPoint) -> Layout:
    return Layout(pool.tp, pool.attention_dp, pool.pp, pool.ep, pool.cp)


def _role(replica: Replica, pools: Sequence[PoolPoint]) -> Role:
    layouts = Layouts.of([_layout(pool) for pool in pools], column=False)
    return Role(replica, layouts, np.array([float(pool.workers) for pool in pools]))


def _rows(prefill: Role, decode: Role, points: Sequence[Point]) -> Iterator[Estimate]:
    asked = [_Options.of(p) for p in points]
    isl = np.array([p.isl for p in points])
    lengths = Lengths(isl, np.array([p.osl for p in points]), isl * np.array([o.prefix_hit for o in asked]))
    decode = replace(decode, admitted=np.array([o.admitted for o in asked]))
    options = TransferOptions(asked[0].pieces, np.array([o.compression for o in asked]))
    loop = closed_split(prefill, decode, np.array([p.concurrency for p in points]), lengths, options)
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
