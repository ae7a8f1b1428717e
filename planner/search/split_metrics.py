"""Matched pools at their exact operating point: from replica counts to candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.job.job import Job
from planner.search.candidates import GpuMemory, Metrics, lengths_of
from planner.search.pools import DecodePool, PrefillPool, name_of
from planner.search.ranking import Candidate, Role, Share
from planner.search.rate_matching import Matches, operating_points
from planner.search.reject import Rejected
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.latency import STATISTICS, e2e
from planner.serving.layout import Array, Layout, Layouts
from planner.serving.memory import Memory
from planner.serving.pd import Role as PoolRole
from planner.serving.pd import SplitFlow, SplitLoop, open_split
from planner.serving.replica import Replica


@dataclass(frozen=True, slots=True)
class Match:
    """Prefill layout ``i`` and decode layout ``j`` of two pools with replica counts, the rate they may carry, and the
    score of the pair search (smaller is better)."""

    prefill: PrefillPool
    decode: DecodePool
    i: int
    j: int
    n_prefill: int
    n_decode: int
    rate: float
    score: float

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        """Layouts of both pools."""
        return self.prefill.family.layouts[self.i], self.decode.family.layouts[self.j]

    @property
    def name(self) -> str:
        """How the ledger calls it; orders equal scores."""
        first, second = self.layouts
        name = (
            f"prefill {name_of(self.prefill.family, first)} x{self.n_prefill}, "
            f"decode {name_of(self.decode.family, second)} x{self.n_decode}"
        )
        if self.decode.blocks is None:
            return name
        split, workers = self.decode.blocks
        count, gpu = workers.ffn[self.j], split.ffn.accelerator.id
        return f"{name} with {count:g} ffn workers {gpu} {split.ffn.weights}"


def roles_of(
    prefill: Replica, decode: Replica, rows: Sequence[tuple[Layout, Layout, int, int]]
) -> tuple[PoolRole, PoolRole]:
    """Rows of (prefill layout, decode layout, prefill replicas, decode replicas) as two pools."""
    first = Layouts.of([row[0] for row in rows], column=False)
    second = Layouts.of([row[1] for row in rows], column=False)
    counts = np.array([row[2:] for row in rows], dtype=float).reshape(-1, 2)
    return PoolRole(prefill, first, counts[:, 0]), PoolRole(decode, second, counts[:, 1])


def candidates_of(matches: Matches, job: Job) -> list[Candidate]:
    """Matches of two pools at their exact operating points, as candidates."""
    flow, _ = operating_points(matches, job)
    found = []
    for row, metrics in enumerate(state_metrics(flow)):
        counts = int(matches.n_prefill[row]), int(matches.n_decode[row])
        match = Match(
            matches.prefill, matches.decode, int(matches.i[row]), int(matches.j[row]), *counts,
            float(flow.rate[row]), float(matches.bound[row]),
        )  # fmt: skip
        found.append(_candidate(match, metrics, flow, row, job))
    return found


def missed_by(match: Matches, job: Job) -> Rejected | None:
    """What a match misses at the load that was asked, or None."""
    flow, _ = operating_points(match, job)
    (metrics,) = state_metrics(flow)
    return _missed(metrics, flow, 0, job)


def state_metrics(state: SplitFlow | SplitLoop) -> list[Metrics]:
    """What users measure, row by row."""
    rows, osl = len(state.rate), state.lengths.osl
    ttft = {s: np.broadcast_to(state.ttft(s), (rows,)) for s in STATISTICS}
    tpot = {s: np.broadcast_to(state.tpot(s), (rows,)) for s in STATISTICS}
    total = {s: e2e(ttft[s], tpot[s], osl) for s in STATISTICS}
    rate = state.rate / state.roles[1].count

    def at(table: Mapping[str, Array], i: int) -> dict[str, float]:
        return {s: float(v[i]) for s, v in table.items()}

    return [
        Metrics(float(rate[i]), float(state.batch[i]), at(ttft, i), at(tpot, i), at(total, i)) for i in range(rows)
    ]


def _missed(metrics: Metrics, flow: SplitFlow | SplitLoop, index: int, job: Job) -> Rejected | None:
    """Why a row cannot be used, or None."""
    if not np.isfinite(flow.batch[index]):
        return Rejected("decode pool cannot carry the rate", "", "more slots", f"{flow.memory.slots[index]:.0f}", 1.0)
    seen = {"ttft": metrics.ttft, "tpot": metrics.tpot, "e2e": metrics.e2e}
    p = job.slo.percentile
    over = {m: seen[m][p] / limit for m, limit in job.slo.limits.items() if not seen[m][p] <= limit}
    if not over:
        return None if np.isfinite(metrics.ttft[p]) else Rejected("prefill pool overloaded", "", "more", "less", 1.0)
    worst = max(over, key=lambda m: over[m])
    need = f"{seen[worst][p] * 1e3:.4g} ms"
    return Rejected(
        f"misses {worst} at this load", "", need, f"a limit of {job.slo.limits[worst] * 1e3:.4g} ms", over[worst] - 1
    )


def _candidate(match: Match, metrics: Metrics, state: SplitFlow | SplitLoop, row: int, job: Job) -> Candidate:
    (first, second), (computing, decoding) = match.layouts, running(state, row)

    def share(
        role: Role, pool: PrefillPool | DecodePool, layout: Layout, count: int, batch: float, held: Memory
    ) -> Share:
        replica, price = pool.family.replica, pool.supply.price
        return Share(role, replica, layout, count, batch, _row(held.slots, row), gpu_memory(held, row), price)

    compute = share("prefill", match.prefill, first, match.n_prefill, computing, state.prefill.memory)
    decode = share("decode", match.decode, second, match.n_decode, decoding, state.memory)
    pools = (compute, *attention_and_ffn(match, decode)) if match.decode.blocks else (compute, decode)
    supplies = [match.prefill.supply, *(supply for supply, _, _ in match.decode.uses)]
    there = {supply.accelerator.id: supply.count for supply in supplies}
    return Candidate(
        pools, sum(there.values()) - sum(pool.gpus for pool in pools), metrics.rate * match.n_decode,
        job.workload.osl, metrics, lengths_of(job.workload), job.workload.concurrency,
    )  # fmt: skip


def attention_and_ffn(match: Match, decode: Share) -> tuple[Share, Share]:
    """The two pools of a split decode replica; attention comes last, because it emits the tokens."""
    assert match.decode.blocks is not None
    split, workers = match.decode.blocks
    own = workers.rows([match.j])
    n_a, n_f, node, ep, m = (int(x[0]) for x in (own.attention, own.ffn, own.ffn_gpus, own.ffn_ep, own.micro_batches))
    _, blocks = split.memories(own, match.decode.family.lengths)
    held = GpuMemory(float(blocks.weights[0]), float(blocks.activations[0]), 0.0)
    layout = Layout(decode.layout.tp, decode.layout.attention_dp // n_a)
    decode = replace(decode, micro_batches=m, instances=decode.replicas)
    attention = replace(decode, role="attention", layout=layout, replicas=n_a * decode.replicas)
    supply = match.decode.supply if match.decode.ffn is None else match.decode.ffn[0]
    ranks = decode.layout.attention_dp
    ffn = replace(
        decode, role="ffn", replica=split.ffn, price=supply.price, layout=Layout(node, ep=ep), memory=held,
        replicas=n_f * decode.replicas, batch=decode.batch * ranks / m, slots=decode.slots * ranks,
    )  # fmt: skip
    return ffn, attention


def split_workers(candidate: Candidate) -> tuple[AttentionFfn, Workers]:
    """The attention and feed-forward workers of one instance of an attention-FFN plan."""
    pools = {pool.role: pool for pool in candidate.pools}
    attention, ffn = pools["attention"], pools["ffn"]
    counts = attention.replicas // attention.instances, ffn.replicas // ffn.instances
    workers = Workers.one(attention.layout, ffn.layout, counts, attention.micro_batches)
    return AttentionFfn(attention.replica, ffn.replica), workers


def both_roles(candidate: Candidate) -> tuple[PoolRole, PoolRole]:
    """The two pools of a candidate, one row each."""
    prefill, decode = candidate.pools[0], candidate.emitting
    layout = Layout(decode.layout.tp, candidate.ranks) if candidate.mode == "af" else decode.layout
    row = (prefill.layout, layout, prefill.replicas, candidate.instances)
    first, second = roles_of(prefill.replica, decode.replica, [row])
    return first, replace(second, blocks=split_workers(candidate)) if candidate.mode == "af" else second


def split_at_rate(candidate: Candidate, rate: float) -> Candidate:
    """A candidate of separate pools carrying ``rate`` requests/s, with the metrics of that load."""
    decode = candidate.emitting
    first, second = both_roles(candidate)
    flow = open_split(first, second, np.array([rate]), candidate.lengths)
    (metrics,) = state_metrics(flow)
    computing, decoding = running(flow, 0)
    # Feed-forward workers see the requests of all attention ranks, a micro-batch at a time.
    load = {"prefill": computing, "ffn": decoding * candidate.ranks / decode.micro_batches}
    pools = tuple(replace(pool, batch=load.get(pool.role, decoding)) for pool in candidate.pools)
    return replace(candidate, pools=pools, rate=rate, per_replica=metrics)


def running(state: SplitFlow | SplitLoop, row: int) -> tuple[float, float]:
    """Requests in work per attention rank of both pools (Little's law on the prefill)."""
    prefill = state.roles[0]
    share = state.rate / prefill.count
    computing = share * state.prefill.own(share, prefill.count) / prefill.layouts.attention_dp
    return _row(computing, row), _row(state.batch, row)


def gpu_memory(memory: Memory, row: int) -> GpuMemory:
    """Bytes on the fullest GPU of one row."""
    return GpuMemory(_row(memory.weights, row), _row(memory.activations, row), _row(memory.request, row))


def _row(values: Array, row: int) -> float:
    flat = np.ravel(values)
    return float(flat[row] if flat.size > 1 else flat[0])
