"""Prefill and decode pools of their own, matched at whole replica counts.

Under Poisson arrivals every layout pair and every count of replicas is bounded and the best are found with a proof
(rate_matching.py). In a closed loop, pairs of undominated layouts are evaluated at thinned counts, without one.
`pair_grid` offers the decode replicas that just fail and just manage to take what a prefill pool delivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.job.job import Job
from planner.search.attention_ffn import attention_ffn_pools
from planner.search.candidates import Family, lengths_of
from planner.search.pools import DecodePool, PrefillPool, compatible, decode_pool, prefill_pool
from planner.search.ranking import Candidate, Outcome
from planner.search.rate_matching import (
    MOST_MATCHES,
    Matches,
    best_matches,
    best_rate,
    bounded,
    counts_of,
    offer_of,
    thinned,
)
from planner.search.reject import Rejected
from planner.search.split_metrics import Match, candidates_of, closed_matches
from planner.search.supply import Supply, objective_of
from planner.serving.latency import handed_over_overhead
from planner.serving.layout import Array, Layouts
from planner.serving.pd import Role, handover
from planner.serving.transfer import TransferOptions

Members = list[tuple[Supply, int, Family]]
_COUNTS = 64
_CLOSED_COUNTS = 5
_KEPT = 12
_KEPT_CLOSED = 1500
_LINK_SHARE = 0.95


def split_candidates(members: Members, job: Job, outcome: Outcome) -> list[Candidate]:
    """All pairs of a prefill and a decode pool that keep the limits, on one GPU type or two; the modes of the job say
    whether decode replicas are whole, split between attention and feed-forward workers, or either."""
    lengths = lengths_of(job.workload)
    members = [member for member in (_that_transfer(*member, outcome) for member in members) if member[2].layouts]
    closed = job.workload.concurrency is not None
    senders = [prefill_pool(*member, pruned=closed) for member in members]
    receivers: list[DecodePool | None] = []
    if "pd" in job.modes:
        receivers += [decode_pool(*member, job.slo, lengths, pruned=closed) for member in members]
    if "af" in job.modes:
        plain = [member for member in members if member[2].replica.speculation is None]
        halved = list(attention_ffn_pools(plain, job.slo, lengths, outcome.rejections))
        receivers += halved
        outcome.exhaustive &= not halved  # of each number of workers only the best cut goes on
    pairs = [
        (prefill, decode) for prefill in senders for decode in receivers
        if decode is not None and compatible(prefill.family.replica, decode.family.replica)
    ]  # fmt: skip
    outcome.exhaustive &= not closed  # pools are pruned by role and counts thinned
    found: list[Candidate] = []
    for af in (False, True):  # each mode has its leaders evaluated, so that they can be compared
        own = [pair for pair in pairs if (pair[1].blocks is not None) == af]
        if not closed:
            found += _sized(own, job, outcome)
            continue
        matches = [match for pair in own for match in _matches(*pair, job, outcome)]
        matches.sort(key=lambda match: (match.score, match.name))
        found += closed_matches(matches[:_KEPT_CLOSED], job, outcome)
    return found


def _sized(pairs: list[tuple[PrefillPool, DecodePool]], job: Job, outcome: Outcome) -> list[Candidate]:
    """Poisson arrivals: the best match of the best layout pairs, proved where the fleet is small enough."""
    thin = None
    while sum(_count(*pair, thin) for pair in pairs) > MOST_MATCHES:
        thin = 64 if thin is None else thin // 2
        outcome.exhaustive = False
    groups = []
    offers = {id(prefill): offer_of(prefill, job, thin) for prefill, _ in pairs}
    for prefill, decode in pairs:
        matches = bounded(offers[id(prefill)], decode, job, thin)
        outcome.candidates += len(prefill.gpus) * len(decode.gpus)
        outcome.points += len(matches.bound)
        if len(matches.bound):
            groups.append(matches)
        else:
            _record(prefill, decode, job, outcome)
    ranking = best_matches(groups, job, max(job.top, _KEPT))
    outcome.exhaustive &= ranking.proved
    outcome.points += ranking.evaluated
    if groups and not ranking.best:
        _record_missed(groups, job, outcome)
    found: list[Candidate] = []
    for index, group in enumerate(groups):
        rows = [row for _, owner, row in ranking.best if owner == index]
        found += candidates_of(group.rows(np.array(rows)), job) if rows else []
    return found


def _count(prefill: PrefillPool, decode: DecodePool, thin: int | None) -> int:
    rows = [counts_of(pool.most) for pool in (prefill, decode)]
    first, second = (len((x if thin is None else thinned(*x, thin))[0]) for x in rows)
    return first * second


def _record(prefill: PrefillPool, decode: DecodePool, job: Job, outcome: Outcome) -> None:
    """No match of two pools reaches the limits or the rate even by its bound: say which is missed."""
    names = f"prefill {prefill.supply.accelerator.id}, decode {decode.supply.accelerator.id}"
    pairs, asked = len(prefill.gpus) * len(decode.gpus), job.workload.rate
    most = 0.0 if asked is None else best_rate(prefill, decode, job)
    if asked is None or most <= 0:
        need, have = "a prompt computed and moved within the limits", "no pair of layouts that does"
        outcome.rejections.add(Rejected("split misses ttft even when idle", names, need, have, 1.0), pairs)
        return
    need, have = f"{asked:.4g} requests/s from the fleet", f"{most:.4g} requests/s"
    outcome.rejections.add(Rejected("fleet too small to split", names, need, have, asked / most - 1), pairs)


def _record_missed(groups: list[Matches], job: Job, outcome: Outcome) -> None:
    """Bounds promised what no exact evaluation kept."""
    for group in groups:
        names = f"prefill {group.prefill.supply.accelerator.id}, decode {group.decode.supply.accelerator.id}"
        load = "even when idle" if job.workload.rate is None else "at this load"
        miss = Rejected(f"split misses a limit {load}", names, "a limit less tight", "no match that keeps it", 1.0)
        outcome.rejections.add(miss, len(group.bound))


def _that_transfer(supply: Supply, available: int, family: Family, outcome: Outcome) -> tuple[Supply, int, Family]:
    """A member without the layouts whose cache the engine cannot move."""
    if family.replica.engine.transfer_stages:
        return supply, available, family
    staged = [layout for layout in family.layouts if layout.pp > 1]
    if staged:
        name, engine = f"{supply.accelerator.id} {staged[0]} {family.replica.weights}", family.replica.engine.id
        reason = f"{engine} moves no cache of pipeline stages"
        outcome.rejections.add(Rejected(reason, name, "pp 1", f"pp {staged[0].pp}"), len(staged))
    return supply, available, family.only([layout for layout in family.layouts if layout.pp == 1])


@dataclass(frozen=True, slots=True)
class PairGrid:
    """Replica counts [prefill layouts, prefill counts, decode layouts, decode choices] and the rate of each."""

    prefill: PrefillPool
    decode: DecodePool
    n_prefill: Array
    n_decode: Array
    rate: Array
    valid: np.ndarray

    @property
    def gpus(self) -> tuple[Array, Array]:
        """GPUs of both pools."""
        g_prefill, g_decode = self.prefill.gpus[:, None, None, None], self.decode.gpus[None, None, :, None]
        return self.n_prefill * g_prefill, self.n_decode * g_decode

    @property
    def cost(self) -> Array | None:
        """US dollars per hour; None when a price is unknown."""
        first, second = self.prefill.supply.price, self.decode.price
        if first is None or second is None:
            return None
        return np.asarray(self.gpus[0] * first + self.n_decode * second[None, None, :, None])

    @property
    def power(self) -> Array:
        """Watts at the limits of the boards."""
        own = self.gpus[0] * self.prefill.supply.accelerator.power
        return np.asarray(own + self.n_decode * self.decode.power[None, None, :, None])


def _matches(prefill: PrefillPool, decode: DecodePool, job: Job, outcome: Outcome) -> Iterator[Match]:
    grid = pair_grid(prefill, decode, job)
    if grid is None:
        return
    outcome.points += grid.rate.size
    outcome.candidates += len(prefill.gpus) * len(decode.gpus)
    score = np.where(grid.valid, _score(grid, job), np.inf)
    if not np.isfinite(score).any():
        _record(prefill, decode, job, outcome)
    shape = np.broadcast_shapes(grid.rate.shape, score.shape)
    counts = [np.broadcast_to(x, shape) for x in (grid.n_prefill, grid.n_decode, grid.rate)]
    every = job.workload.concurrency is not None
    for i, j in np.ndindex(shape[0], shape[2]):
        table = score[i, :, j, :]
        order = np.argwhere(np.isfinite(table)) if every else [np.unravel_index(table.argmin(), table.shape)]
        seen: set[tuple[float, float]] = set()  # shares of little room round to the same count
        for a, b in order:
            n_prefill, n_decode, rate = (float(x[i, a, j, b]) for x in counts)
            if np.isfinite(table[a, b]) and (n_prefill, n_decode) not in seen:
                seen.add((n_prefill, n_decode))
                yield Match(prefill, decode, i, j, int(n_prefill), int(n_decode), rate, float(table[a, b]))


def pair_grid(prefill: PrefillPool, decode: DecodePool, job: Job) -> PairGrid | None:
    """Every replica count of every pair of layouts that is worth a look; None where the fleet holds no pair."""
    gpu = prefill.supply.accelerator.id
    own = [gpus.min() for supply, _, gpus in decode.uses if supply.accelerator.id == gpu]
    most = int((prefill.available - sum(own)) // prefill.gpus.min())
    if most < 1 or any(available < gpus.min() for _, available, gpus in decode.uses):
        return None
    closed = job.workload.concurrency is not None
    counts = _thinned(most, _CLOSED_COUNTS if closed else _COUNTS)
    slack, links = _slack(prefill, decode, job)
    per_replica = prefill.rates(counts, slack, job.slo.percentile)[:, :, :, None]
    n_prefill = counts[None, :, None, None]
    delivered = per_replica * n_prefill
    room = np.full((1, 1, 1, 1), np.inf)
    for supply, available, gpus in decode.uses:
        taken = n_prefill * prefill.gpus[:, None, None, None] if supply.accelerator.id == gpu else 0.0
        room = np.minimum(room, np.floor((available - taken) / gpus[None, None, :, None] + 1e-9))
    each = _decode_rate(decode, job)[None, None, :, None]
    n_decode = _decode_counts(delivered, each, room, job)
    rate = np.minimum(np.minimum(delivered, n_decode * each), _link_rate(links, n_prefill, n_decode))
    valid = (n_decode >= 1) & (n_decode <= room) & (rate > 0)
    valid &= n_prefill * prefill.gpus[:, None, None, None] <= prefill.available
    grid = PairGrid(prefill, decode, n_prefill, n_decode, rate, valid)
    return _within_budget(_at_least(grid, job), job)


def _thinned(most: int, kept: int) -> Array:
    """1 to ``most``, thinned geometrically where there are more than ``kept``; always with ``most``."""
    if most <= kept:
        return np.arange(1.0, most + 1.0)
    return np.unique(np.round(np.geomspace(1, most, kept)))


def _decode_counts(delivered: Array, each: Array, room: Array, job: Job) -> Array:
    """Decode replicas to look at, along a new last axis."""
    if job.workload.concurrency is not None:
        return np.asarray(np.maximum(np.floor(room * np.array([1.0, 0.5, 0.25, 0.1, 0.0])), 1.0))
    asked = job.workload.rate
    matched = (delivered if asked is None else np.minimum(delivered, asked)) / np.maximum(each, 1e-300)
    choices = [np.floor(matched), np.ceil(matched * (1 - 1e-9)), room, np.ones_like(matched)]
    together = np.concatenate(np.broadcast_arrays(*choices), axis=-1)
    return np.asarray(np.clip(together, 1.0, np.maximum(room, 1.0)))


def _decode_rate(decode: DecodePool, job: Job) -> Array:
    """Requests/s of one decode replica [d]: the most, or one request per rank where latency alone counts."""
    if objective_of(job) != "latency" or job.workload.rate is not None:
        return decode.rate
    ranks = np.array([float(layout.attention_dp) for layout in decode.family.layouts])
    alone = ranks / (lengths_of(job.workload).decodes * decode.alone)
    return np.asarray(np.minimum(alone, decode.rate))


def _slack(prefill: PrefillPool, decode: DecodePool, job: Job) -> tuple[Array, tuple[Array, Array]]:
    """Seconds [p, d] that the TTFT limit leaves for wait and prefill, and requests/s of one replica's links [p, d]."""
    lengths, ones = lengths_of(job.workload), np.ones((1, 1))
    row = Layouts.of(decode.family.layouts)
    across = Layouts(*(x.reshape(1, -1) for x in (row.tp, row.attention_dp, row.pp, row.ep, row.cp)))
    # Two replicas of a fleet may lie anywhere: their caches cross the network unless the whole plan shares a domain.
    far = np.full((1, 1), 1e9)
    sender, receiver = (
        Role(prefill.family.replica, prefill.family.columns, ones),
        Role(decode.family.replica, across, far),
    )
    link = handover(sender, receiver, lengths, prefill.times.chunks, TransferOptions())
    own = prefill.times.own(0.0)
    exposed = link.seconds(0.0, own)
    tpot = decode.tpot[None, :]
    tokens = decode.family.replica.tokens_per_step
    overhead = handed_over_overhead(decode.family.replica.engine, tpot, tokens) + tpot * tokens
    limits = [x for x in (job.slo.ttft, job.slo.e2e) if x is not None]
    slack = np.broadcast_to(min(limits, default=np.inf) - overhead - exposed, exposed.shape)
    ranks = prefill.family.columns.attention_dp / link.sending.egress, across.attention_dp / link.sending.ingress
    return slack, (np.broadcast_to(ranks[0], exposed.shape), np.broadcast_to(ranks[1], exposed.shape))


def _link_rate(links: tuple[Array, Array], n_prefill: Array, n_decode: Array) -> Array:
    egress, ingress = (x[:, None, :, None] for x in links)
    return np.asarray(_LINK_SHARE * np.minimum(egress * n_prefill, ingress * n_decode))


def _at_least(grid: PairGrid, job: Job) -> PairGrid:
    """With an asked rate: only what carries it, at exactly that rate. The fewest GPUs are one replica of each."""
    valid, rate = grid.valid, grid.rate
    asked = job.workload.rate
    if asked is not None:
        valid = valid & (rate >= asked * (1 - 1e-9))
        rate = np.where(rate >= asked * (1 - 1e-9), asked, rate)
    elif objective_of(job) == "gpus" and job.workload.concurrency is None:
        valid = valid & (grid.n_prefill == 1) & (grid.n_decode == 1)
    return PairGrid(grid.prefill, grid.decode, grid.n_prefill, grid.n_decode, rate, valid)


def _within_budget(grid: PairGrid, job: Job) -> PairGrid:
    cost = grid.cost
    if job.budget is None or cost is None:
        return grid
    valid = grid.valid & (cost <= job.budget * (1 + 1e-12))
    return PairGrid(grid.prefill, grid.decode, grid.n_prefill, grid.n_decode, grid.rate, valid)


def _score(grid: PairGrid, job: Job) -> Array:
    """What the objective makes of a count, smaller is better; ties go to fewer GPUs."""
    first, second = grid.gpus
    gpus, rate = first + second, np.maximum(grid.rate, 1e-300)
    cost = gpus * 1e3 if grid.cost is None else grid.cost
    objective = objective_of(job)
    if job.workload.concurrency is not None and objective in ("cost", "gpus"):
        return np.asarray(cost if objective == "cost" else gpus + 0.0 * rate)
    match objective:
        case "throughput":
            return np.asarray(-rate * (1 - 1e-9 * gpus))
        case "cost":
            return np.asarray(cost / rate)
        case "gpus":
            return np.asarray(gpus - rate * 1e-9)
        case "energy":
            return grid.power / rate
        case _:
            return _idle_latency(grid, job) + 1e-9 * gpus - 1e-12 * rate


def _idle_latency(grid: PairGrid, job: Job) -> Array:
    own = grid.prefill.times.own(0.0)[:, :, None, None]
    tokens = lengths_of(job.workload).decodes
    return np.asarray(own + tokens * grid.decode.alone[None, None, :, None] + 0.0 * grid.rate)
