"""Sizing of prefill and decode pools, with a proof.

A match is a layout and a number of replicas for each pool. All matches that a fleet allows are bounded from below in
what the objective makes of them: no pool carries more than its own limits let it, whatever the other one is, and no
first token comes before an idle decode pool lets it. Bounds are visited best first and evaluated exactly, by a search
on the running batch, until none is left that could still be among the best: what comes out is optimal over all
matches. Where a fleet allows too many of them the counts are thinned, and nothing is claimed. Here are the bounds under
Poisson arrivals; loop_matching.py has those of a closed loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.job.job import Job
from planner.job.slo import QUANTILE
from planner.search.candidates import MOST_PREFILL_LOAD, lengths_of
from planner.search.pools import DecodePool, PrefillPool
from planner.search.supply import objective_of
from planner.serving.bracket import last_kept
from planner.serving.decode import decode_rate
from planner.serving.latency import e2e, handed_over_overhead
from planner.serving.layout import Array, BoolArray, Layouts
from planner.serving.pd import Pair, Role, SplitFlow, SplitLoop, handover
from planner.serving.transfer import TransferOptions, pieces_of, sent_bytes, transfer

_LOADS = np.concatenate(
    [np.geomspace(1e-4, 0.1, 20, endpoint=False), np.linspace(0.1, 0.9, 80), 1 - np.geomspace(0.095, 1e-4, 40)]
)
MOST_MATCHES = 2_000_000
_MOST_EXACT = 60_000
# Bounds that are evaluated at once: few at first, since the best of them spare most of the others.
_FIRST_CHUNK, _CHUNK = 128, 2048
_FAR = 10.0
_EMPTY = 1e-4
Indices = np.ndarray


@dataclass(frozen=True, slots=True)
class Matches:
    """Matches of two pools, one per row: layout indices, replica counts, and the least score that each can have."""

    prefill: PrefillPool
    decode: DecodePool
    i: Indices
    n_prefill: Array
    j: Indices
    n_decode: Array
    bound: Array

    def rows(self, kept: Indices) -> Matches:
        """Some of the rows."""
        return replace(
            self, i=self.i[kept], n_prefill=self.n_prefill[kept], j=self.j[kept], n_decode=self.n_decode[kept],
            bound=self.bound[kept],
        )  # fmt: skip

    def pair(self, job: Job) -> Pair:
        """Both pools of every row, gathered from what is known of their layouts."""
        lengths = lengths_of(job.workload)
        first, second = (
            Layouts.of([family.layouts[k] for k in index], column=False)
            for family, index in ((self.prefill.family, self.i), (self.decode.family, self.j))
        )
        blocks = self.decode.blocks
        if blocks is not None:
            blocks = (blocks[0], blocks[1].rows([int(k) for k in self.j]))
        sender = Role(self.prefill.family.replica, first, self.n_prefill)
        receiver = Role(self.decode.family.replica, second, self.n_decode, blocks)
        times = self.prefill.times.rows(self.i, 0)
        link = handover(sender, receiver, lengths, times.chunks, TransferOptions())
        budget, table = self.decode.memory.rows(self.j, len(self.decode.family.layouts)), self.decode.table.rows(self.j)
        return Pair((sender, receiver), times, budget, table, link, lengths)


def counts_of(most: Array, *, one: bool = False) -> tuple[Indices, Array]:
    """Layout index and replicas of every number of replicas up to ``most`` of each layout (only one, if ``one``)."""
    times = np.minimum(most, 1 if one else np.inf).astype(int)
    index = np.repeat(np.arange(len(times)), times)
    first = np.repeat(np.cumsum(times) - times, times)
    return index, np.arange(len(index)) - first + 1.0


def thinned(index: Indices, count: Array, kept: int) -> tuple[Indices, Array]:
    """Those counts of every layout that lie on a geometric grid of about ``kept``, the largest of each included."""
    top = np.zeros(int(index.max(initial=-1)) + 1)
    np.maximum.at(top, index, count)
    grid = np.unique(np.round(np.geomspace(1.0, max(float(top.max(initial=1.0)), 1.0), kept)))
    chosen = np.isin(count, grid) | (count == top[index])
    return index[chosen], count[chosen]


@dataclass(frozen=True, slots=True)
class Offer:
    """Every number of replicas of a prefill pool, one per row: layout index, replicas, and the seconds that wait and
    prefill take at each of ``_LOADS``."""

    pool: PrefillPool
    i: Indices
    count: Array
    spent: Array


def offer_of(prefill: PrefillPool, job: Job, thin: int | None = None) -> Offer:
    """What a prefill pool can do, whichever pool decodes."""
    i, count = counts_allowed(prefill, job, thin)
    own = prefill.times.rows(i, 1)
    rate = own.capacity * _LOADS[None, :]
    wait, computing = own.wait_and_own(rate, count[:, None], job.slo.percentile)
    return Offer(prefill, i, count, wait + computing)


def counts_allowed(pool: PrefillPool | DecodePool, job: Job, thin: int | None) -> tuple[Indices, Array]:
    """Layout index and replicas of every number that the fleet allows, thinned where that is too many."""
    free = job.workload.rate is None and job.workload.concurrency is None
    index, count = counts_of(pool.most, one=objective_of(job) == "gpus" and free)
    return (index, count) if thin is None else thinned(index, count, thin)


def bounded(offer: Offer, decode: DecodePool, job: Job, thin: int | None = None) -> Matches:
    """All matches of two pools that GPUs and budget allow and whose bound reaches an asked rate."""
    prefill, i, n_prefill = offer.pool, offer.i, offer.count
    j, n_decode = counts_allowed(decode, job, thin)
    if not len(i) or not len(j):
        empty = np.zeros(0)
        return Matches(prefill, decode, empty.astype(int), empty, empty.astype(int), empty, empty)
    reach, idle = _reach(offer, decode, job)
    carried = n_decode * decode_most(decode, job)[j]
    rate = np.minimum(reach[:, j], carried[None, :])
    return matched((prefill, i, n_prefill), (decode, j, n_decode), rate, idle, job)


def matched(
    sending: tuple[PrefillPool, Indices, Array], receiving: tuple[DecodePool, Indices, Array], rate: Array, idle: Array,
    job: Job,
) -> Matches:  # fmt: skip
    """The matches that GPUs and budget allow and whose ``rate`` [prefill rows, decode rows] is above zero and reaches
    an asked one, with what the objective makes of it and of the ``idle`` end-to-end seconds [layouts, layouts]."""
    (prefill, i, n_prefill), (decode, j, n_decode) = sending, receiving
    first, second = (n_prefill * prefill.gpus[i])[:, None], (n_decode * decode.gpus[j])[None, :]
    valid = rate > 0
    for supply, available, gpus in decode.uses:
        if supply.accelerator.id == prefill.supply.accelerator.id:
            valid &= first + (n_decode * gpus[j])[None, :] <= available
    asked = job.workload.rate
    if asked is not None:
        valid &= rate >= asked * (1 - 1e-9)
        rate = np.full_like(rate, asked)
    cost, power = _bills(prefill, decode, first, n_decode[None, :], j)
    if job.budget is not None and cost is not None:
        valid &= cost <= job.budget * (1 + 1e-12)
    score = _scores(job, first + second, cost, power, rate, idle[i][:, j])
    rows, columns = np.nonzero(valid)
    return Matches(prefill, decode, i[rows], n_prefill[rows], j[columns], n_decode[columns], score[rows, columns])


def best_rate(prefill: PrefillPool, decode: DecodePool, job: Job) -> float:
    """Most requests/s that the bounds of any match allow, whatever rate is asked."""
    free = job.model_copy(
        update={"workload": job.workload.model_copy(update={"rate": None}), "objective": "throughput"}
    )
    return float(-bounded(offer_of(prefill, free), decode, free).bound.min(initial=0.0))


def _reach(offer: Offer, decode: DecodePool, job: Job) -> tuple[Array, Array]:
    """Most requests/s [rows of the offer, decode layouts] that TTFT and end-to-end limits can allow, and the
    least end-to-end seconds [layouts, layouts] of a request."""
    prefill, i, count = offer.pool, offer.i, offer.count
    answer = lengths_of(job.workload).decodes * decode.alone[None, :]
    least = least_first_token(prefill, decode, job)
    slack = np.full_like(least, np.inf) if job.slo.ttft is None else job.slo.ttft - least
    if job.slo.e2e is not None:
        slack = np.minimum(slack, job.slo.e2e - least - answer)
    ends, idle = np.append(_LOADS, 1.0), prefill.times.rows(np.arange(len(prefill.gpus)), 1).own(0.0, 1.0)
    rows = zip(offer.spent, i, strict=True)
    reach = np.stack([ends[np.searchsorted(row, slack[k], side="right")] for row, k in rows])
    most = reach * prefill.capacity[i][:, None] * count[:, None]
    return np.where(slack[i] < idle[i], 0.0, most), idle + least + answer


def least_first_token(prefill: PrefillPool, decode: DecodePool, job: Job) -> Array:
    """Least seconds [prefill layouts, decode layouts] of a first token beside wait and prefill."""
    lengths, percentile = lengths_of(job.workload), job.slo.percentile
    times = prefill.times.rows(np.arange(len(prefill.gpus)), 1)
    size = sent_bytes(prefill.family.replica, decode.family.replica, lengths.isl, TransferOptions())
    across = Layouts.of(decode.family.layouts)
    across = Layouts(*(x.reshape(1, -1) for x in (across.tp, across.attention_dp, across.pp, across.ep, across.cp)))
    pools = (prefill.family.replica, decode.family.replica, prefill.family.columns, across)
    sent = np.minimum(
        transfer(*pools, size, inside=True).seconds, transfer(*pools, size, inside=False).seconds
    )  # fmt: skip
    pieces = pieces_of(prefill.family.replica, times.chunks, TransferOptions())
    joining = 0.5 if percentile == "mean" else QUANTILE[percentile]
    if job.workload.concurrency is not None:
        joining = 0.0  # a closed loop replaces who has ended, at the end of an iteration
    tokens = decode.family.replica.tokens_per_step
    before = handed_over_overhead(decode.family.replica.engine, decode.alone, tokens) + joining * decode.alone * tokens
    return np.asarray(before[None, :] + sent / pieces)


def decode_most(decode: DecodePool, job: Job) -> Array:
    """Requests/s of one decode replica [layouts]: the most, or one request per rank where latency alone counts."""
    if objective_of(job) != "latency" or job.workload.rate is not None:
        return decode.rate
    ranks = np.array([float(layout.attention_dp) for layout in decode.family.layouts])
    alone = ranks / (lengths_of(job.workload).decodes * decode.alone)
    return np.asarray(np.minimum(alone, decode.rate))


def _bills(
    prefill: PrefillPool, decode: DecodePool, first: Array, n_decode: Array, j: Indices
) -> tuple[Array | None, Array]:
    """US dollars per hour (None when a price is unknown) and watts of ``first`` prefill GPUs and decode replicas."""
    supply, price = prefill.supply, decode.price
    power = np.asarray(first * supply.accelerator.power + n_decode * decode.power[j])
    if supply.price is None or price is None:
        return None, power
    return np.asarray(first * supply.price + n_decode * price[j]), power


def _scores(job: Job, total: Array, cost: Array | None, power: Array, rate: Array, seconds: Array) -> Array:
    """What the objective makes of GPUs, dollars, watts, requests/s and end-to-end seconds; smaller is better."""
    safe = np.maximum(rate, 1e-300)
    match objective_of(job):
        case "throughput":
            return np.asarray(-safe * (1 - 1e-9 * total))
        case "cost":
            # A closed loop is the same work whatever serves it: the cheapest plan that keeps the limits.
            paid = total * 1e3 if cost is None else cost
            return np.asarray(paid / safe if job.workload.concurrency is None else paid - 1e-9 * safe)
        case "gpus":
            return np.asarray(total - 1e-9 * safe)
        case "energy":
            return np.asarray(power / safe)
        case _:
            return np.asarray(seconds + 1e-9 * total - 1e-12 * safe)


def operating_points(matches: Matches, job: Job) -> tuple[SplitFlow | SplitLoop, Array]:
    """The steady state of every match at the most requests/s that keep the limits (or at the load asked), and its
    score; inf where no load keeps them."""
    pair = matches.pair(job)
    decode = pair.roles[1]
    top = matches.decode.batch[matches.j]
    yes = np.ones(len(top), dtype=bool)

    def at(batch: Array) -> SplitFlow:
        batch = pair.table.settled(batch)
        tpot = pair.table.at(batch)
        rate = decode_rate(decode.layouts, batch, tpot, pair.lengths) * decode.count
        return pair.flow(rate, batch, yes, tpot)

    flow: SplitFlow | SplitLoop
    if job.workload.concurrency is not None:
        flow = pair.closed(np.full(len(top), float(job.workload.concurrency)))
        kept = keeps(flow, job)
    elif job.workload.rate is not None:
        flow = pair.open(np.full(len(top), job.workload.rate))
        kept = keeps(flow, job) & (flow.batch <= top * (1 + 1e-6))
    else:
        if objective_of(job) == "latency":
            top = np.minimum(top, 1.0)
        flow = at(last_kept(lambda batch: margin(at(batch), job), np.minimum(np.full_like(top, _EMPTY), top), top))
        kept = keeps(flow, job)
    p = job.slo.percentile
    seconds = e2e(flow.ttft(p), flow.tpot(p), pair.lengths.osl)
    first = pair.roles[0].gpus
    cost, power = _bills(matches.prefill, matches.decode, first, matches.n_decode, matches.j)
    return flow, np.where(kept, _scores(job, first + decode.gpus, cost, power, flow.rate, seconds), np.inf)


def keeps(flow: SplitFlow | SplitLoop, job: Job) -> BoolArray:
    """Whether a steady state keeps every limit."""
    return np.asarray(margin(flow, job) >= 0)


def margin(flow: SplitFlow | SplitLoop, job: Job) -> Array:
    """How far a steady state is from its nearest limit, as a share of it; negative where a limit is missed. Open loads
    have one more: `MOST_PREFILL_LOAD`."""
    p = job.slo.percentile
    ttft, tpot = flow.ttft(p), flow.tpot(p)
    seen = {"ttft": ttft, "tpot": tpot, "e2e": e2e(ttft, tpot, flow.lengths.osl)}
    left = np.ones_like(flow.rate)
    if isinstance(flow, SplitFlow):
        left = left - np.minimum(flow.prefill_load / MOST_PREFILL_LOAD, 1.0 + _FAR)
    for name, limit in job.slo.limits.items():
        left = np.minimum(left, 1.0 + 1e-9 - seen[name] / limit)
    # Beyond the capacity nothing is finite: as far off as can be told.
    return np.where(np.isfinite(ttft) & np.isfinite(flow.batch), np.maximum(left, -_FAR), -_FAR)


@dataclass(slots=True)
class Ranking:
    """The best match of every layout pair, best first: (score, group, row); ``proved`` when no bound is left that could
    enter it, ``evaluated`` exact evaluations."""

    best: list[tuple[float, int, int]]
    proved: bool
    evaluated: int


def best_matches(groups: Sequence[Matches], job: Job, wanted: int) -> Ranking:
    """The ``wanted`` layout pairs with the best matches, by best-first evaluation of all bounds."""
    bound = np.concatenate([group.bound for group in groups]) if groups else np.zeros(0)
    owner = np.repeat(np.arange(len(groups)), [len(group.bound) for group in groups])
    start = np.concatenate([[0], np.cumsum([len(group.bound) for group in groups])]).astype(int)
    pair = np.concatenate(
        [group.i * len(group.decode.gpus) + group.j for group in groups] or [np.zeros(0, dtype=int)]
    )  # fmt: skip
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    open_, evaluated = np.ones(len(bound), dtype=bool), 0
    limit, size = np.inf, _FIRST_CHUNK
    while evaluated < _MOST_EXACT:
        left = np.flatnonzero(open_ & (bound < limit))
        if not len(left):
            return Ranking(sorted(best.values())[:wanted], True, evaluated)
        chunk = left[np.argpartition(bound[left], size)[:size]] if len(left) > size else left
        size = min(2 * size, _CHUNK)
        open_[chunk] = False
        known = np.array([best.get((int(owner[m]), int(pair[m])), (np.inf,))[0] for m in chunk])
        chunk = chunk[bound[chunk] < known]
        for index in np.unique(owner[chunk]):
            mine = chunk[owner[chunk] == index] - start[index]
            _, score = operating_points(groups[index].rows(mine), job)
            evaluated += len(mine)
            for row, value in zip(mine, score, strict=True):
                key = (int(index), int(pair[row + start[index]]))
                if value < best.get(key, (np.inf,))[0]:
                    best[key] = (float(value), int(index), int(row))
        if len(best) >= wanted:
            limit = sorted(value[0] for value in best.values())[wanted - 1]
    return Ranking(sorted(best.values())[:wanted], False, evaluated)
