"""Replica counts of two pools that are worth a look as a unit of a mixture: for every number of prefill replicas the
decode replicas that just fail and just manage to take what these deliver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.job.job import Job
from planner.search.candidates import lengths_of
from planner.search.pools import DecodePool, PrefillPool
from planner.search.rate_matching import decode_most
from planner.search.supply import objective_of
from planner.serving.latency import handed_over_overhead
from planner.serving.layout import Array, Layouts
from planner.serving.pd import Role, handover
from planner.serving.transfer import TransferOptions

_COUNTS = 64
_LINK_SHARE = 0.95


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


def pair_grid(prefill: PrefillPool, decode: DecodePool, job: Job) -> PairGrid | None:
    """Every replica count of every pair of layouts that is worth a look; None where the fleet holds no pair."""
    gpu = prefill.supply.accelerator.id
    own = [gpus.min() for supply, _, gpus in decode.uses if supply.accelerator.id == gpu]
    most = int((prefill.available - sum(own)) // prefill.gpus.min())
    if most < 1 or any(available < gpus.min() for _, available, gpus in decode.uses):
        return None
    counts = _thinned(most, _COUNTS)
    slack, links = _slack(prefill, decode, job)
    per_replica = prefill.rates(counts, slack, job.slo.percentile)[:, :, :, None]
    n_prefill = counts[None, :, None, None]
    delivered = per_replica * n_prefill
    room = np.full((1, 1, 1, 1), np.inf)
    for supply, available, gpus in decode.uses:
        taken = n_prefill * prefill.gpus[:, None, None, None] if supply.accelerator.id == gpu else 0.0
        room = np.minimum(room, np.floor((available - taken) / gpus[None, None, :, None] + 1e-9))
    each = decode_most(decode, job)[None, None, :, None]
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
    asked = job.workload.rate
    matched = (delivered if asked is None else np.minimum(delivered, asked)) / np.maximum(each, 1e-300)
    choices = [np.floor(matched), np.ceil(matched * (1 - 1e-9)), room, np.ones_like(matched)]
    together = np.concatenate(np.broadcast_arrays(*choices), axis=-1)
    return np.asarray(np.clip(together, 1.0, np.maximum(room, 1.0)))


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
    own = prefill.times.own(0.0, 1.0)
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
    elif objective_of(job) == "gpus":
        valid = valid & (grid.n_prefill == 1) & (grid.n_decode == 1)
    return PairGrid(grid.prefill, grid.decode, grid.n_prefill, grid.n_decode, rate, valid)


def _within_budget(grid: PairGrid, job: Job) -> PairGrid:
    cost = grid.cost
    if job.budget is None or cost is None:
        return grid
    valid = grid.valid & (cost <= job.budget * (1 + 1e-12))
    return PairGrid(grid.prefill, grid.decode, grid.n_prefill, grid.n_decode, grid.rate, valid)
