"""Pods: some prefill and some decode replicas that belong together, as units of the exact mixture.

A pod is what the mixture optimiser rents as a whole: its capacity is the highest rate of the joint model of both pools
(queue of the prefill pool, KV transfer, decode batch; serving/pd.py) that keeps the limits, so nothing of it has to be
made linear. Pods may stand on two GPU types. Of all counts of all pairs of layouts only those become pods that carry
more than two smaller units on the same GPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from planner.job.job import Job
from planner.search.candidates import MOST_PREFILL_LOAD, Metrics, lengths_of
from planner.search.pair_grid import pair_grid
from planner.search.pools import DecodePool, PrefillPool, compatible, decode_pool, prefill_pool
from planner.search.ranking import Candidate, Share
from planner.search.reject import Rejections
from planner.search.split_metrics import gpu_memory, roles_of, running, state_metrics
from planner.search.splits import Members, that_transfers
from planner.search.supply import Supply
from planner.search.unit_table import WORTH, UnitTable
from planner.serving.bracket import last_kept
from planner.serving.decode import decode_rate
from planner.serving.latency import e2e, slots_needed
from planner.serving.layout import Array, Layout
from planner.serving.pd import Role, SplitFlow, open_split
from planner.serving.prefill import prefill_times
from planner.serving.replica import Replica

# GPUs of one type in a pod. Sharing a queue among more replicas gains little, and larger deployments take more pods.
POD_GPUS = 24
_COARSE = np.concatenate([np.geomspace(0.01, 0.4, 5), np.linspace(0.5, 1.0, 9)])
# Tables of D(B) are shared by rows, so the same pod seen alone differs in the third digit: stay clear of the edge.
_EDGE = 0.995


@dataclass(frozen=True, slots=True)
class Side:
    """One pool of a pod."""

    supply: Supply
    replica: Replica
    layout: Layout
    count: int

    @property
    def gpus(self) -> int:
        """GPUs of the pool."""
        return self.count * self.layout.gpus

    def __str__(self) -> str:
        return _side_name(self.count, self.replica, self.layout)


@dataclass(frozen=True, slots=True)
class Pod:
    """A prefill pool and a decode pool."""

    prefill: Side
    decode: Side

    @property
    def name(self) -> str:
        """Unique name: both pools with their counts."""
        return f"prefill {self.prefill} + decode {self.decode}"


def pod_name(candidate: Candidate) -> str:
    """The name of the pod that a candidate is one copy of."""
    first, second = (_side_name(pool.replicas, pool.replica, pool.layout) for pool in candidate.pools)
    return f"prefill {first} + decode {second}"


def _side_name(count: int, replica: Replica, layout: Layout) -> str:
    drafts = "" if replica.speculation is None else f" {replica.speculation}"
    return f"{count} x {replica.accelerator.id} {layout} {replica.weights} kv {replica.kv}{drafts}"


def worthwhile_pods(members: Members, job: Job, whole: Iterable[tuple[str, int, float]]) -> list[Pod]:
    """Pods on one GPU type or two that carry more than smaller units on the same GPUs.

    ``whole`` lists the aggregated replicas as (GPU type, GPUs, requests/s). Rates are those of the pair search here;
    ``pod_capacities`` has the exact ones.
    """
    members = [that_transfers(supply, min(gpus, POD_GPUS), family, Rejections()) for supply, gpus, family in members]
    members = [member for member in members if member[2].layouts]
    senders = [pool for member in members if (pool := prefill_pool(*member))]
    receivers = [decode_pool(*member, job.slo, lengths_of(job.workload)) for member in members]
    found: dict[tuple[str, str], list[tuple[PrefillPool, DecodePool]]] = defaultdict(list)
    for sender, receiver in product(senders, receivers):
        if receiver is not None and compatible(sender.family.replica, receiver.family.replica):
            found[sender.supply.accelerator.id, receiver.supply.accelerator.id].append((sender, receiver))
    types = sorted({member[0].accelerator.id for member in members})
    alone: dict[str, Array] = {}
    kept: list[Pod] = []
    for gpu in types:
        table = _Table(job)
        for _, size, rate in (unit for unit in whole if unit[0] == gpu and unit[1] <= POD_GPUS):
            table.rates[size, 0] = max(table.rates[size, 0], rate)
        table.enter(found[gpu, gpu], lambda first, second: (first + second, 0.0 * first))
        alone[gpu] = table.closed()[:, 0]
        kept += table.worthwhile()
    for first, second in combinations(types, 2):
        table = _Table(job)
        table.rates[:, 0], table.rates[0, :] = alone[first], alone[second]
        table.enter(found[first, second], lambda sending, receiving: (sending, receiving))
        table.enter(found[second, first], lambda sending, receiving: (receiving, sending))
        kept += table.worthwhile()
    return kept


class _Table(UnitTable[Pod]):
    """Best rate by GPUs of two types [first, second], and the pod that reaches it where it is not made of others."""

    def __init__(self, job: Job) -> None:
        super().__init__(POD_GPUS)
        self.job = job

    def enter(self, pairs: Sequence[tuple[PrefillPool, DecodePool]], place: object) -> None:
        """Note the best pod of every number of GPUs; ``place`` says which pool stands on which type."""
        assert callable(place)
        for prefill, decode in pairs:
            grid = pair_grid(prefill, decode, self.job)
            if grid is None:
                continue
            shape = np.broadcast_shapes(grid.rate.shape, grid.valid.shape)
            columns = [np.broadcast_to(x, shape) for x in place(*grid.gpus)]
            index = np.flatnonzero(grid.valid & (columns[0] <= POD_GPUS) & (columns[1] <= POD_GPUS))
            rate = np.broadcast_to(grid.rate, shape).ravel()[index]
            cells = [np.round(c.ravel()[index]).astype(int) for c in columns]
            best = np.full(self.rates.shape, -1)
            order = np.argsort(rate, kind="stable")
            best[cells[0][order], cells[1][order]] = order  # of equal cells the last one stays: the highest rate
            for cell in map(tuple, np.argwhere(best >= 0)):
                position = best[cell]
                if rate[position] <= self.rates[cell] * (1 + WORTH):
                    continue
                i, a, j, b = np.unravel_index(index[position], shape)
                counts = [np.broadcast_to(n, shape)[i, a, j, b] for n in (grid.n_prefill, grid.n_decode)]
                self.rates[cell] = rate[position]
                self.units[cell] = Pod(
                    Side(prefill.supply, prefill.family.replica, prefill.family.layouts[i], int(counts[0])),
                    Side(decode.supply, decode.family.replica, decode.family.layouts[j], int(counts[1])),
                )


def pod_capacities(pods: Sequence[Pod], job: Job) -> Iterator[Candidate]:
    """Each pod at the highest Poisson rate of the job's request that keeps its limits; pods that keep none are left
    out. ``rate`` is that of the whole pod.
    """
    groups: dict[tuple[str, ...], list[Pod]] = defaultdict(list)
    for pod in pods:
        groups[tuple(x for side in (pod.prefill, pod.decode) for x in _kind(side.replica))].append(pod)
    for members in groups.values():
        rows = [(p.prefill.layout, p.decode.layout, p.prefill.count, p.decode.count) for p in members]
        replicas = members[0].prefill.replica, members[0].decode.replica
        rate = _highest(replicas, rows, job)
        able = [i for i in range(len(rows)) if rate[i] > 0]
        if able:
            flow = open_split(*roles_of(*replicas, [rows[i] for i in able]), rate[able], lengths_of(job.workload))
            for row, metrics in enumerate(state_metrics(flow)):
                yield _candidate(members[able[row]], flow, row, metrics, job)


def _kind(replica: Replica) -> tuple[str, ...]:
    return replica.accelerator.id, replica.weights, replica.kv, str(replica.speculation or "")


def _highest(replicas: tuple[Replica, Replica], rows: Sequence[tuple[Layout, Layout, int, int]], job: Job) -> Array:
    """Requests/s [rows], 0 where no load keeps the limits: a coarse grid below what either pool could carry, then the
    edge inside the last interval that does."""
    most = _most(*roles_of(*replicas, rows), job)
    coarse = np.broadcast_to(_COARSE, (len(rows), len(_COARSE)))
    first = _margin(replicas, rows, most[:, None] * coarse, job) >= 0
    last = np.where(first.any(axis=1), len(_COARSE) - 1 - first[:, ::-1].argmax(axis=1), -1)
    low = np.where(last >= 0, _COARSE[np.maximum(last, 0)], 0.0)
    high = np.where(last >= 0, _COARSE[np.minimum(last + 1, len(_COARSE) - 1)], 0.0)

    def margin(load: Array) -> Array:
        return _margin(replicas, rows, np.maximum(most * load, 1e-12)[:, None], job)[:, 0]

    return np.asarray(np.where(last >= 0, last_kept(margin, low, high) * most * _EDGE, 0.0))


def _most(prefill: Role, decode: Role, job: Job) -> Array:
    """Requests/s [rows] that neither pool can exceed."""
    lengths = lengths_of(job.workload)
    times = prefill_times(prefill.replica, prefill.layouts, lengths)
    slots = np.maximum(np.broadcast_to(decode.memory(lengths).slots, prefill.count.shape), 1.0)
    table = decode.table(float(slots.max()), lengths)
    decoding = decode_rate(decode.layouts, slots, table.at(slots), lengths) * decode.count
    return np.asarray(np.minimum(times.capacity * prefill.count, decoding))


def _margin(
    replicas: tuple[Replica, Replica], rows: Sequence[tuple[Layout, Layout, int, int]], rates: Array, job: Job
) -> Array:
    """What is left of the tightest limit [rows, loads], relative; -1 where the pod cannot carry the rate at all."""
    repeated = [row for row in rows for _ in range(rates.shape[1])]
    flow = open_split(*roles_of(*replicas, repeated), rates.ravel(), lengths_of(job.workload))
    p, limits, n = job.slo.percentile, job.slo.limits, rates.size
    ttft, tpot = np.broadcast_to(flow.ttft(p), (n,)), np.broadcast_to(flow.tpot(p), (n,))
    seen = {"ttft": ttft, "tpot": tpot, "e2e": e2e(ttft, tpot, flow.lengths.osl)}
    fits = np.logical_and(flow.memory.fits, flow.prefill.memory.fits)
    good = np.isfinite(flow.batch) & np.isfinite(ttft) & np.broadcast_to(fits, (n,))
    good &= flow.prefill_load <= MOST_PREFILL_LOAD
    good &= slots_needed(np.where(good, flow.batch, 0.0), p) <= flow.memory.slots  # as a search over splits asks
    left = np.ones(n)
    for name, limit in limits.items():
        left = np.minimum(left, 1.0 - np.where(good, seen[name], 0.0) / limit)
    return np.asarray(np.where(good, left, -1.0).reshape(rates.shape))


def _candidate(pod: Pod, flow: SplitFlow, row: int, metrics: Metrics, job: Job) -> Candidate:
    computing, decoding = running(flow, row)

    def share(role: str, side: Side, batch: float) -> Share:
        held = flow.prefill.memory if role == "prefill" else flow.memory
        slots = float(np.broadcast_to(held.slots, flow.rate.shape)[row])
        return Share(
            "prefill" if role == "prefill" else "decode", side.replica, side.layout, side.count, batch, slots,
            gpu_memory(held, row), side.supply.price,
        )  # fmt: skip

    pools = share("prefill", pod.prefill, computing), share("decode", pod.decode, decoding)
    return Candidate(pools, 0, float(flow.rate[row]), job.workload.osl, metrics, lengths_of(job.workload))
