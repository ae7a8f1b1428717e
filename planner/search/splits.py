"""Prefill and decode pools of their own, matched at whole replica counts.

Every layout pair and every count of replicas is bounded and the best are found with a proof, under Poisson arrivals
(rate_matching.py) and in a closed loop (loop_matching.py).
"""

from __future__ import annotations

import numpy as np

from planner.job.job import Job
from planner.search.attention_ffn import attention_ffn_pools
from planner.search.candidates import Family, lengths_of
from planner.search.loop_matching import loop_bounded
from planner.search.pools import DecodePool, PrefillPool, compatible, decode_pool, prefill_pool
from planner.search.ranking import Candidate, Outcome
from planner.search.rate_matching import (
    MOST_MATCHES,
    best_matches,
    bounded,
    counts_of,
    offer_of,
    thinned,
)
from planner.search.reject import Rejected, Rejections
from planner.search.split_metrics import candidates_of
from planner.search.split_rejections import record_missed, record_no_room, record_pair, record_slow
from planner.search.supply import Supply

Members = list[tuple[Supply, int, Family]]
_KEPT = 12


def split_candidates(members: Members, job: Job, outcome: Outcome) -> list[Candidate]:
    """All pairs of a prefill and a decode pool that keep the limits, on one GPU type or two; the modes of the job say
    whether decode replicas are whole, split between attention and feed-forward workers, or either."""
    lengths = lengths_of(job.workload)
    members = [that_transfers(*member, outcome.rejections) for member in members]
    members = [member for member in members if member[2].layouts]
    # In a closed loop the running batch does not fluctuate, and requests beyond the slots wait.
    slo = job.slo if job.workload.concurrency is None else job.slo.model_copy(update={"percentile": "mean"})
    senders: list[PrefillPool] = []
    receivers: list[DecodePool] = []
    for member in members:
        sender = prefill_pool(*member, pruned=False)
        record_no_room(member[2], sender, outcome.rejections)
        senders += [] if sender is None else [sender]
        receiver = decode_pool(*member, slo, lengths, pruned=False) if "pd" in job.modes else None
        if receiver is not None:
            receivers.append(receiver)
        elif "pd" in job.modes:
            record_slow(member[2], slo, outcome.rejections)
    if "af" in job.modes:
        halved = list(attention_ffn_pools(members, slo, lengths, outcome.rejections))
        receivers += halved
        outcome.exhaustive &= not halved  # of each number of workers only the best cut goes on
    pairs = [
        (prefill, decode) for prefill in senders for decode in receivers
        if compatible(prefill.family.replica, decode.family.replica)
    ]  # fmt: skip
    found: list[Candidate] = []
    for af in (False, True):  # each mode has its leaders evaluated, so that they can be compared
        found += _sized([pair for pair in pairs if (pair[1].blocks is not None) == af], job, outcome)
    return found


def _sized(pairs: list[tuple[PrefillPool, DecodePool]], job: Job, outcome: Outcome) -> list[Candidate]:
    """The best match of the best layout pairs, proved where the fleet is small enough."""
    thin = None
    while sum(_count(*pair, thin) for pair in pairs) > MOST_MATCHES:
        thin = 64 if thin is None else thin // 2
        outcome.exhaustive = False
    groups = []
    closed = job.workload.concurrency is not None
    offers = {} if closed else {id(prefill): offer_of(prefill, job, thin) for prefill, _ in pairs}
    for prefill, decode in pairs:
        if closed:
            matches = loop_bounded(prefill, decode, job, thin)
        else:
            matches = bounded(offers[id(prefill)], decode, job, thin)
        outcome.candidates += len(prefill.gpus) * len(decode.gpus)
        outcome.points += len(matches.bound)
        if len(matches.bound):
            groups.append(matches)
        else:
            record_pair(prefill, decode, job, outcome.rejections)
    ranking = best_matches(groups, job, max(job.top, _KEPT))
    outcome.exhaustive &= ranking.proved
    outcome.points += ranking.evaluated
    if groups and not ranking.best:
        record_missed(groups, job, outcome.rejections)
    found: list[Candidate] = []
    for index, group in enumerate(groups):
        rows = [row for _, owner, row in ranking.best if owner == index]
        found += candidates_of(group.rows(np.array(rows)), job) if rows else []
    return found


def _count(prefill: PrefillPool, decode: DecodePool, thin: int | None) -> int:
    rows = [counts_of(pool.most) for pool in (prefill, decode)]
    first, second = (len((x if thin is None else thinned(*x, thin))[0]) for x in rows)
    return first * second


def that_transfers(
    supply: Supply, available: int, family: Family, rejections: Rejections
) -> tuple[Supply, int, Family]:  # fmt: skip
    """A member without the layouts whose cache the engine cannot move."""
    if family.replica.engine.transfer_stages:
        return supply, available, family
    staged = [layout for layout in family.layouts if layout.pp > 1]
    if staged:
        name, engine = f"{supply.accelerator.id} {staged[0]} {family.replica.weights}", family.replica.engine.id
        reason = f"{engine} moves no cache of pipeline stages"
        rejections.add(Rejected(reason, name, "pp 1", f"pp {staged[0].pp}"), len(staged))
    return supply, available, family.only([layout for layout in family.layouts if layout.pp == 1])
