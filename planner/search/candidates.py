"""Best operating point of every layout of one GPU type and precision, found on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.job.slo import Slo
from planner.job.workload import Workload
from planner.search.reject import Rejected, Rejections
from planner.serving.aggregated import OpenLoop, open_loop
from planner.serving.latency import STATISTICS, e2e, open_loop_tpot, open_loop_ttft, slots_needed
from planner.serving.layout import Array, BoolArray, Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica
from planner.units import format_bytes, format_duration

# Short outputs after long prompts reach their limits long before one decode runs all the time.
_NEARLY_IDLE = (1e-4, 1e-3, 5e-3, 0.02, 0.1, 0.3)
_COARSE, _FINE = 51, 33
POINTS_PER_LAYOUT = _COARSE + _FINE


@dataclass(frozen=True, slots=True)
class Metrics:
    """What users measure, seconds by statistic; ``rate`` requests/s of the replica."""

    rate: float
    batch: float
    ttft: dict[str, float]
    tpot: dict[str, float]
    e2e: dict[str, float]


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes on the fullest GPU: weights, activations, and what each running request adds; ``capacity`` of it where
    that is not the accelerator of the replica."""

    weights: float
    activations: float
    request: float
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """All layouts of one replica kind that fit, as columns, with the memory of each."""

    replica: Replica
    layouts: tuple[Layout, ...]
    columns: Layouts
    memory: Memory
    lengths: Lengths

    def held(self, values: Array, index: int) -> float:
        """One layout's element of a memory column."""
        flat = np.ravel(values)
        return float(flat[index] if flat.size > 1 else flat[0])

    def gpu_memory(self, index: int) -> GpuMemory:
        """Bytes of one layout."""
        m = self.memory
        weights, activations, request = (self.held(values, index) for values in (m.weights, m.activations, m.request))
        return GpuMemory(weights, activations, request, m.capacity)

    def only(self, kept: Sequence[Layout]) -> Family:
        """The same replica with some of the layouts."""
        columns = Layouts.of(kept)
        return Family(
            self.replica,
            tuple(kept),
            columns,
            memory(self.replica, columns, self.lengths),
            self.lengths,
        )


def lengths_of(workload: Workload) -> Lengths:
    """Token counts of the workload's mean request."""
    return Lengths(workload.isl, workload.osl, workload.isl * workload.prefix_hit)


def fitting(replica: Replica, candidates: list[Layout], workload: Workload, rejections: Rejections) -> Family | None:
    """Keep the layouts whose weights and at least one request fit; the others go to the ledger with the
    nearest miss.
    """
    if not candidates:
        return None
    lengths = lengths_of(workload)
    budget = memory(replica, Layouts.of(candidates), lengths)
    fits = np.broadcast_to(budget.fits, (len(candidates), 1))[:, 0]
    _record_memory(replica, candidates, budget, fits, rejections)
    kept = [layout for layout, ok in zip(candidates, fits, strict=True) if ok]
    return Family(replica, (), Layouts.of(candidates), budget, lengths).only(kept) if kept else None


def _record_memory(
    replica: Replica, candidates: list[Layout], budget: Memory, fits: np.ndarray, rejections: Rejections
) -> None:
    shape = (len(candidates), 1)
    room = np.broadcast_to(budget.room, shape)[:, 0]
    request = np.broadcast_to(budget.longest, shape)[:, 0]
    spent = budget.capacity - room
    for index in np.flatnonzero(~fits):
        need = spent[index] + request[index]
        rejections.add(
            Rejected(
                "does not fit in memory",
                f"{replica.accelerator.id} {candidates[index]} {replica.weights}",
                f"{format_bytes(need)} per GPU for weights, reserve and one request",
                format_bytes(budget.capacity),
                float(need / budget.capacity - 1),
            )
        )


MOST_PREFILL_LOAD = 0.98
"""Share of the prompts/s that a pool could carry up to which a plan loads it where nothing else limits it: the queue is
finite and a queueing law still says how long."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Open-loop points of every layout over a row of batches [layouts, batches], and which of them keep the SLO."""

    point: OpenLoop
    ttft: Array
    tpot: Array
    e2e: Array
    allowed: BoolArray
    stable: BoolArray


def curve(family: Family, batches: Array, slo: Slo, alone: Array | None = None) -> Curve:
    """Evaluate ``batches`` [layouts or 1, n] and test stability, slots and every limit of the SLO; ``alone`` as in
    another curve of the family."""
    point = open_loop(family.replica, family.columns, batches, family.lengths, alone=alone)
    statistic, osl = slo.percentile, family.lengths.osl
    ttft = open_loop_ttft(point, family.replica.engine, statistic)
    tpot = open_loop_tpot(point, osl, statistic)
    total = e2e(ttft, tpot, osl)
    stable = (slots_needed(batches, statistic) <= family.memory.slots) & (point.prefill_load < MOST_PREFILL_LOAD)
    stable &= point.steps.chunk_load <= 1.0
    allowed = stable.copy()
    for name, values in (("ttft", ttft), ("tpot", tpot), ("e2e", total)):
        if name in slo.limits:
            allowed &= values <= slo.limits[name]
    return Curve(point, ttft, tpot, total, allowed, stable)


def best_batches(family: Family, slo: Slo, rejections: Rejections) -> tuple[Array, Array, OpenLoop]:
    """Batch per rank with the highest rate that keeps the SLO, that rate, and its point, [layouts]; NaN where none
    does.

    A geometric grid finds the interval, a second, finer grid inside it the point.
    """
    top = float(min(family.memory.slots.max(), family.replica.engine.max_sequences))
    coarse = np.concatenate([_NEARLY_IDLE, np.geomspace(1.0, max(top, 2.0), _COARSE - len(_NEARLY_IDLE))])[None, :]
    first = curve(family, coarse, slo)
    index = _argbest(first)
    _record_slo(family, first, index, slo, rejections)
    low = coarse[0, np.maximum(index, 0)]
    high = coarse[0, np.minimum(np.maximum(index, 0) + 1, _COARSE - 1)]
    fine = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, _FINE)[None, :]
    second = curve(family, fine, slo, first.point.alone)
    pick = np.maximum(_argbest(second), 0)
    rows = np.arange(len(pick))
    batch = np.where(index >= 0, fine[rows, pick], np.nan)
    rate = np.where(index >= 0, np.broadcast_to(second.point.rate, fine.shape)[rows, pick], np.nan)
    return batch, rate, second.point.picked(pick)


def _argbest(c: Curve) -> np.ndarray:
    """Column with the highest allowed rate of each layout, -1 where none is allowed."""
    rate = np.where(c.allowed, np.broadcast_to(c.point.rate, c.allowed.shape), -1.0)
    best = rate.argmax(axis=1)
    return np.where(rate[np.arange(len(best)), best] > 0, best, -1)


def _record_slo(family: Family, c: Curve, index: np.ndarray, slo: Slo, rejections: Rejections) -> None:
    """For layouts without any allowed point: the limit that even the emptiest point misses most, and by how much."""
    values = {"ttft": c.ttft, "tpot": c.tpot, "e2e": c.e2e}
    for row in np.flatnonzero(index < 0):
        name = f"{family.replica.accelerator.id} {family.layouts[row]} {family.replica.weights}"
        missed = {m: float(values[m][row, 0]) / limit for m, limit in slo.limits.items()}
        if not missed:
            rejections.add(Rejected("no stable load", name, "prefill load below 98 %", "more", 1.0))
            continue
        worst = max(missed, key=lambda metric: missed[metric])
        seen, limit = float(values[worst][row, 0]), slo.limits[worst]
        rejections.add(
            Rejected(
                f"misses {worst} even when idle",
                name,
                format_duration(seen),
                f"a limit of {format_duration(limit)}",
                seen / limit - 1,
            )
        )


def batch_at_rate(family: Family, rate: Array, most: Array) -> Array:
    """Batch per rank at which each layout [layouts] carries ``rate`` requests/s; below ``most``, where rate is
    larger.
    """
    low, high = np.zeros_like(most), most.copy()
    for _ in range(4):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, 17)[None, 1:]
        rates = np.broadcast_to(open_loop(family.replica, family.columns, grid, family.lengths).rate, grid.shape)
        enough = rates >= rate[:, None] * (1 - 1e-12)
        first = np.where(enough.any(axis=1), enough.argmax(axis=1), grid.shape[1] - 1)
        rows = np.arange(len(first))
        low, high = np.where(first > 0, grid[rows, np.maximum(first - 1, 0)], low), grid[rows, first]
    return high


def metrics_at(family: Family, batch: Array) -> list[Metrics]:
    """Everything users measure at ``batch`` [layouts]."""
    return metrics_of(family, batch, open_loop(family.replica, family.columns, batch[:, None], family.lengths))


def metrics_of(family: Family, batch: Array, point: OpenLoop) -> list[Metrics]:
    """The same at ``point`` [layouts, 1]."""
    engine, osl, shape = family.replica.engine, family.lengths.osl, (len(batch), 1)
    ttft = {s: np.broadcast_to(open_loop_ttft(point, engine, s), shape)[:, 0] for s in STATISTICS}
    tpot = {s: np.broadcast_to(open_loop_tpot(point, osl, s), shape)[:, 0] for s in STATISTICS}
    total = {s: e2e(ttft[s], tpot[s], osl) for s in STATISTICS}
    rate = np.broadcast_to(point.rate, shape)[:, 0]

    def at(table: Mapping[str, Array], i: int) -> dict[str, float]:
        return {s: float(v[i]) for s, v in table.items()}

    return [Metrics(float(rate[i]), float(batch[i]), at(ttft, i), at(tpot, i), at(total, i)) for i in range(len(batch))]
