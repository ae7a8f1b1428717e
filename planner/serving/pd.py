"""Prefill and decode on GPUs of their own: two pools, a KV transfer between them, one steady state.

TTFT = front end + wait for a prefill replica + own prefill + exposed transfer + wait for a decode slot, and the decode
iterations that pass before the client sees the token; TPOT = D(B), since no prompt interrupts a decode iteration.
Everything in flight is somewhere: N = X * (TTFT + (osl-1) * D(B)), B = X * (osl-1) * D(B) / ranks (Little).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from planner.cost.moe import largest_of
from planner.job.slo import QUANTILE
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.decode import DecodeTable, decode_rate
from planner.serving.latency import handed_over_overhead, luck, wait, z_score
from planner.serving.layout import Array, BoolArray, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.prefill import PrefillTimes, prefill_times
from planner.serving.replica import Replica
from planner.serving.transfer import (
    Transfer,
    TransferOptions,
    exposed_seconds,
    pieces_of,
    sent_bytes,
    transfer,
)

_BISECTIONS = 60
# Above this load of the prefill pool its queue holds what the loop leaves over.
_LIMITED = 0.95
# Load generators draw lengths uniformly from 80 to 100 % of a nominal one: standard deviation over mean.
_LENGTH_VARIATION = 0.2 / 12**0.5 / 0.9
# Parts of the time to first token, in order.
QUEUE, OWN, EXPOSED, JOIN, SLOT, FRONT = (
    "queue for prefill", "own prefill", "exposed KV transfer", "decode step to join", "wait for a decode slot",
    "first decode steps and front end",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Role:
    """Replicas of one pool, one element per row; ``blocks`` where a replica is itself split between attention and
    feed-forward workers; ``admitted`` requests that an attention rank takes at most, where less than fit in memory."""

    replica: Replica
    layouts: Layouts
    count: Array
    blocks: tuple[AttentionFfn, Workers] | None = None
    admitted: Array | None = None

    @property
    def gpus(self) -> Array:
        """GPUs of the pool."""
        return self.count * (self.layouts.gpus if self.blocks is None else self.blocks[1].gpus)

    def memory(self, lengths: Lengths) -> Memory:
        """Budget of the GPUs that hold the cache; without a slot where the feed-forward workers do not fit."""
        if self.blocks is None:
            held = memory(self.replica, self.layouts, lengths)
        else:
            held, blocks = self.blocks[0].memories(self.blocks[1], lengths)
            held = replace(held, slots=np.where(blocks.fits, held.slots, 0.0))
        return held if self.admitted is None else replace(held, slots=np.minimum(held.slots, self.admitted))

    def table(self, largest: float, lengths: Lengths) -> DecodeTable:
        """D(B) of every row; with ``blocks`` all micro-batches of an attention-FFN split count as one batch."""
        if self.blocks is None:
            return DecodeTable.of(self.replica, self.layouts, largest, lengths)
        rows = len(self.count)
        split, workers, sizes = self.blocks[0], self.blocks[1].column(), lengths.column(rows)
        return DecodeTable.tabulate(
            lambda batch: split.token_seconds(workers, batch * workers.ranks, sizes), largest, rows
        )

    def luck(self, tpot: Array, lengths: Lengths) -> Array:
        """Deviation of a request's seconds per token by the luck of its drafts."""
        return luck(self.replica.tokens_per_step, self.replica.step_variance, tpot, lengths.osl)


def one_domain(prefill: Role, decode: Role) -> Array:
    """Whether both pools share one scale-up domain, so that KV needs no NIC."""
    same = prefill.replica.accelerator.id == decode.replica.accelerator.id
    return np.asarray(same & (prefill.gpus + decode.gpus <= prefill.replica.topology.domain_size))


@dataclass(frozen=True, slots=True)
class Handover:
    """From a computed prompt to a decode slot: seconds on the wire, what of them is exposed, loads of the links."""

    sending: Transfer
    pieces: Array
    ranks_sending: Array
    ranks_receiving: Array

    def seconds(self, rate: ArrayLike, prefill: ArrayLike) -> Array:
        """Mean exposed seconds at ``rate`` requests/s of the deployment, the wait for the fuller NIC included; inf
        when a link carries more than it can."""
        egress = wait(floats(rate) * self.sending.egress / self.ranks_sending, self.sending.egress, "mean")
        ingress = wait(floats(rate) * self.sending.ingress / self.ranks_receiving, self.sending.ingress, "mean")
        return exposed_seconds(self.sending.seconds + np.maximum(egress, ingress), prefill, self.pieces)

    @property
    def capacity(self) -> Array:
        """Requests/s at which the first link is full."""
        return np.minimum(self.ranks_sending / self.sending.egress, self.ranks_receiving / self.sending.ingress)


def handover(prefill: Role, decode: Role, lengths: Lengths, chunks: Array, options: TransferOptions) -> Handover:
    """Links between two pools. All prompt tokens travel, prefix hits too; attention ranks send side by side."""
    size = sent_bytes(prefill.replica, decode.replica, lengths.isl, options)
    sending = transfer(
        prefill.replica, decode.replica, prefill.layouts, decode.layouts, size, inside=one_domain(prefill, decode)
    )
    return Handover(
        sending, pieces_of(prefill.replica, chunks, options),
        prefill.count * prefill.layouts.attention_dp, decode.count * decode.layouts.attention_dp,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SplitLoop:
    """Steady state of a closed loop, [rows]; where ``fits`` is false the other members mean nothing.

    ``batch`` running decodes per attention rank; ``rate`` requests/s; ``limited`` whether the prefill pool is what
    holds the loop up; ``admission`` seconds that a computed prompt waits for a decode slot.
    """

    prefill: PrefillTimes
    memory: Memory
    batch: Array
    mean_tpot: Array
    roles: tuple[Role, Role]
    lengths: Lengths
    rate: Array
    concurrency: Array
    mean_ttft: Array
    limited: BoolArray
    link: Handover
    admission: Array

    @property
    def fits(self) -> Array:
        """Whether weights and one request fit in both pools."""
        return np.logical_and(self.memory.fits, self.prefill.memory.fits)

    def ttft(self, statistic: str) -> Array:
        """Seconds from arrival to first token.

        Where a pool is the bottleneck the queue before it is as long as the loop is deep, the same for everybody; a
        wait that is only chance has the spread of an open queue, and one request alone never waits.
        """
        share, replicas = self.rate / self.roles[0].count, self.roles[0].count
        even = self.limited | (self.concurrency <= 1)
        chance = np.where(even, 0.0, self.prefill.wait(share, replicas, "mean"))
        spread = self.prefill.wait(share, replicas, statistic) - chance
        return self.mean_ttft + np.where(even, 0.0, spread)

    def first_token(self, statistic: str) -> dict[str, Array]:
        """What ``ttft`` is the sum of."""
        decode = self.roles[1].replica
        own = self.prefill.own(self.rate / self.roles[0].count, self.roles[0].count)
        parts = {
            OWN: own, EXPOSED: self.link.seconds(self.rate, own), SLOT: self.admission,
            FRONT: handed_over_overhead(decode.engine, self.mean_tpot, decode.tokens_per_step),
        }  # fmt: skip
        return {QUEUE: self.ttft(statistic) - np.sum(list(parts.values()), axis=0), **parts}

    def load_test(self, statistic: str) -> tuple[Array, Array]:
        """TTFT and requests/s as a load test reports them that starts all of its N requests at once.

        The start brings N prompts together, which wait for half of them on average, and is one of the rounds. Means and
        medians get the same share of it. In a replay the burst dissolves within two rounds and a median sees nothing of
        it, as in tests of aggregated replicas; but the measured medians of splits lie where the mean does, with every
        engine and GPU. Why is not known (docs/accuracy.md).
        """
        prefill, rounds = self.roles[0], self.roles[1].replica.engine.burst_rounds
        others = np.maximum(self.concurrency / prefill.count - 1.0, 0.0)
        burst = np.where(self.limited, 0.0, others / (2.0 * self.prefill.capacity * rounds))
        cycle = self.mean_ttft + burst + self.lengths.decodes * self.mean_tpot
        return self.ttft("mean") + burst, self.concurrency / cycle / self._drain()

    def _drain(self) -> Array:
        """Duration of a load test over the time in which its requests would pass at full load.

        N clients of R requests each end apart: lengths of variation v make the sum of R of them vary by v/sqrt(R),
        and the test lasts until the last of N has ended, z(N) deviations late. One client alone never waits for others.
        """
        rounds = self.roles[1].replica.engine.burst_rounds
        return np.asarray(1.0 + largest_of(self.concurrency) * _LENGTH_VARIATION / np.sqrt(rounds))

    def tpot(self, statistic: str) -> Array:
        """Seconds per output token: no prompt interrupts a decode iteration, so it is the same for everybody but for
        the luck of drafts."""
        wide = self.mean_tpot + z_score(statistic) * self.roles[1].luck(self.mean_tpot, self.lengths)
        return np.where(self.lengths.single_token, 0.0, wide)


@dataclass(frozen=True, slots=True)
class SplitFlow:
    """Steady state under Poisson arrivals at ``rate`` requests/s of the deployment, [rows].

    ``batch`` running decodes per attention rank, beyond reach (inf) where the pool cannot carry the rate; ``mean_tpot``
    seconds; ``slope`` what a further running request adds to an iteration.
    """

    prefill: PrefillTimes
    memory: Memory
    link: Handover
    roles: tuple[Role, Role]
    lengths: Lengths
    rate: Array
    batch: Array
    mean_tpot: Array
    slope: Array

    @property
    def prefill_load(self) -> Array:
        """Requests/s over those that the prefill pool could carry."""
        return np.asarray(self.rate / self.roles[0].count / self.prefill.capacity)

    @property
    def exposed(self) -> Array:
        """Seconds between the end of a prefill and the arrival of its cache, beyond what the prefill hides."""
        share, replicas = self.rate / self.roles[0].count, self.roles[0].count
        return self.link.seconds(self.rate, self.prefill.own(share, replicas))

    def ttft(self, statistic: str) -> Array:
        """Wait and prefill + exposed transfer + what is left of the decode iteration that it has to join + overhead."""
        return np.asarray(sum(self.first_token(statistic).values()))

    def first_token(self, statistic: str) -> dict[str, Array]:
        """What ``ttft`` is the sum of."""
        share, replicas = self.rate / self.roles[0].count, self.roles[0].count
        tokens = self.roles[1].replica.tokens_per_step
        joining = self.mean_tpot * tokens * (0.5 if statistic == "mean" else QUANTILE[statistic])
        queue, own = self.prefill.wait_and_own(share, replicas, statistic)
        return {
            QUEUE: queue, OWN: own, EXPOSED: self.link.seconds(self.rate, own),
            JOIN: joining, FRONT: handed_over_overhead(self.roles[1].replica.engine, self.mean_tpot, tokens),
        }  # fmt: skip

    def tpot(self, statistic: str) -> Array:
        """TPOT of the request at a percentile: Poisson fluctuation of the batch moves it, and the luck of drafts."""
        carried = np.isfinite(self.batch)
        spread = np.sqrt(np.where(carried, self.batch, 0.0)) * self.slope
        spread = np.hypot(spread, self.roles[1].luck(self.mean_tpot, self.lengths))
        wide = np.where(carried, self.mean_tpot + z_score(statistic) * spread, np.inf)
        return np.where(self.lengths.single_token, 0.0, wide)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prefill and a decode pool, row by row, with everything about them that does not depend on the load."""

    roles: tuple[Role, Role]
    times: PrefillTimes
    budget: Memory
    table: DecodeTable
    link: Handover
    lengths: Lengths

    def batch_at(self, rate: Array) -> tuple[Array, BoolArray]:
        """The fewest running decodes per attention rank that emit ``rate`` requests/s of the deployment [rows], and
        whether the decode pool carries it: bisection on the table of D(B)."""
        decode, table = self.roles[1], self.table
        each = rate / decode.count
        top = np.maximum(np.broadcast_to(self.budget.slots, rate.shape), 1.0)
        low, high = np.zeros_like(top), top.copy()
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            settled = table.settled(middle)
            enough = decode_rate(decode.layouts, settled, table.at(settled), self.lengths) >= each
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        high = table.settled(high)
        carried = decode_rate(decode.layouts, high, table.at(high), self.lengths) >= each * (1 - 1e-9)
        return high, carried

    def flow(self, rate: Array, batch: Array, carried: BoolArray, tpot: Array | None = None) -> SplitFlow:
        """Steady state at ``rate``, of which ``batch`` running decodes per attention rank are known, and perhaps their
        ``tpot``."""
        tpot = self.table.at(batch) if tpot is None else tpot
        slope = np.maximum(tpot - self.table.alone, 0.0) / np.maximum(batch, 1.0)
        reached = np.where(carried, batch, np.inf)
        return SplitFlow(
            self.times, self.budget, self.link, self.roles, self.lengths, rate, reached, tpot, slope
        )  # fmt: skip

    def open(self, rate: Array) -> SplitFlow:
        """Steady state under Poisson arrivals at ``rate`` requests/s of the deployment [rows]."""
        return self.flow(rate, *self.batch_at(rate))

    def closed(self, concurrency: Array) -> SplitLoop:
        """Steady state with ``concurrency`` requests in flight over the whole deployment [rows].

        Bisection on the running batch B: it fixes the rate, the rate fixes the waits. A prefill pool or a link at its
        limit lets its wait grow until everybody is accounted for; what finds no decode slot waits for one.
        """
        prefill, decode = self.roles
        times, lengths = self.times, self.lengths
        ranks = decode.count * decode.layouts.attention_dp
        most = np.maximum(np.minimum(concurrency / ranks, np.maximum(self.budget.slots, 1.0)), 1e-6)

        def state(batch: Array) -> tuple[Array, Array, Array]:
            tpot = self.table.at(batch)
            rate = decode_rate(decode.layouts, batch, tpot, lengths) * decode.count
            share = rate / prefill.count
            # An arrival meets the others, not itself: one request alone never waits.
            others = 1.0 - 1.0 / np.maximum(concurrency, 1.0)
            queue, own = times.wait_and_own(share, prefill.count, "mean")
            queue = np.where(others > 0, queue, 0.0) * others
            overhead = handed_over_overhead(decode.replica.engine, tpot, decode.replica.tokens_per_step)
            ttft = overhead + queue + own + self.link.seconds(rate, own)
            return tpot, rate, ttft

        low, high = np.full_like(most, 1e-9), most.copy()
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            tpot, rate, ttft = state(middle)
            enough = rate * (ttft + lengths.decodes * tpot) >= concurrency
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        tpot, rate, ttft = state(low)
        waiting = np.maximum(concurrency / rate - lengths.decodes * tpot - ttft, 0.0)
        limited = rate / prefill.count > _LIMITED * times.capacity
        return SplitLoop(
            times, self.budget, low, tpot, self.roles, lengths, rate, concurrency, ttft + waiting, limited, self.link,
            np.where(limited, 0.0, waiting),
        )  # fmt: skip


def paired(prefill: Role, decode: Role, lengths: Lengths, options: TransferOptions | None = None) -> Pair:
    """Evaluate both pools, row by row: times of a prompt, D(B) up to the slots of the cache, the links between."""
    times, budget = prefill_times(prefill.replica, prefill.layouts, lengths), decode.memory(lengths)
    table = decode.table(float(np.max(np.maximum(budget.slots, 1.0))), lengths)
    link = handover(prefill, decode, lengths, times.chunks, options or TransferOptions())
    return Pair((prefill, decode), times, budget, table, link, lengths)


def closed_split(
    prefill: Role, decode: Role, concurrency: Array, lengths: Lengths, options: TransferOptions | None = None
) -> SplitLoop:
    """Steady state with ``concurrency`` requests in flight over the whole deployment; arguments have shape [rows]."""
    return paired(prefill, decode, lengths, options).closed(concurrency)


def open_split(
    prefill: Role, decode: Role, rate: Array, lengths: Lengths, options: TransferOptions | None = None
) -> SplitFlow:
    """Steady state under Poisson arrivals at ``rate`` requests/s of the deployment; arguments have shape [rows]."""
    return paired(prefill, decode, lengths, options).open(rate)
