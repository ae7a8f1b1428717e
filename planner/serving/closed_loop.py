"""A closed loop (constant requests in flight) and a static batch: what load tests measure.

Times are computed once on a grid of running batches and interpolated, so the self-consistent batch is found by
bisection on
numbers that are already there; hundreds of configurations cost two passes over the operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.serving.aggregated import Steps, steps, tpot_mean
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.latency import closed_loop_ttft, luck, opening_burst, z_score
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica

_KNOTS = 24
POINTS_PER_ROW = _KNOTS
_BISECTIONS = 48


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Steady state, one element per row.

    ``queue`` seconds that a request waits for a slot in the KV cache; where ``memory.fits`` is false (weights or one
    request do not fit) the other members mean nothing.
    """

    replica: Replica
    lengths: Lengths
    steps: Steps
    memory: Memory
    mean_tpot: Array
    queue: Array
    concurrency: Array
    attention_dp: Array

    def ttft(self, statistic: str) -> Array:
        """Seconds from arrival to first token."""
        return self.queue + closed_loop_ttft(
            self.steps, self.mean_tpot, self.lengths.osl, self.replica.engine, statistic
        )

    @property
    def rate(self) -> Array:
        """Requests/s of the replica in steady state (Little's law)."""
        return self._rate(self.ttft("mean"))

    def load_test(self, statistic: str) -> tuple[Array, Array]:
        """TTFT and requests/s as a load test reports them: its opening burst stays in the mean and in the duration."""
        median = self.ttft("p50")
        mean = median + opening_burst(self.steps, self.replica.engine)
        return (median if statistic == "p50" else mean), self._rate(mean)

    def _rate(self, mean_ttft: Array) -> Array:
        return self.concurrency / (mean_ttft + self.lengths.decodes * self.mean_tpot) * self.attention_dp

    def tpot(self, statistic: str) -> Array:
        """Seconds per output token of the request at ``statistic``: the prompts met in its life are Poisson
        counts.
        """
        spread = np.sqrt(self.steps.batch) / floats(self.lengths.osl) * self.steps.prefill
        spread = np.hypot(spread, luck(self.steps.tokens, self.steps.variance, self.mean_tpot, self.lengths.osl))
        return np.where(self.lengths.single_token, 0.0, self.mean_tpot + z_score(statistic) * spread)


def closed_loop(replica: Replica, layouts: Layouts, concurrency: Array, lengths: Lengths) -> ClosedLoop:
    """Steady state with ``concurrency`` requests in flight per attention rank; arguments have shape [rows].

    The running batch B solves concurrency = B * (TTFT + decode time)/(decode time), Little's law on both
    phases, capped
    by the slots of the KV cache. What does not fit waits, and TTFT grows by what Little's law leaves of the cycle.
    """
    budget = memory(replica, layouts, lengths)
    slots = np.maximum(budget.slots, 1.0)
    grid = _Grid(replica, layouts, np.maximum(concurrency, 1.0), lengths)
    decodes, single = lengths.decodes, lengths.single_token

    def cycle(batch: Array) -> tuple[Steps, Array, Array]:
        s = grid.at(batch)
        tpot = tpot_mean(s, lengths.osl, others=np.maximum(batch - 1.0, 0.0))
        return s, np.where(single, 1.0, tpot), closed_loop_ttft(s, tpot, lengths.osl, replica.engine, "p50")

    low, high = np.full_like(concurrency, 1e-3), np.minimum(concurrency, slots)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        _, tpot, ttft = cycle(middle)
        enough = middle * (1.0 + ttft / (decodes * tpot)) >= concurrency
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    s, tpot, steady = cycle(high)
    per_rank = high / (decodes * tpot)
    waiting = np.maximum(concurrency / per_rank - decodes * tpot - steady, 0.0)
    queue = np.where(high >= slots * 0.999, waiting, 0.0)
    # Answers of one token: prompts follow each other, so the last of them waits for all others.
    s, tpot = grid.at(np.where(single, np.minimum(concurrency, slots), high)), np.where(single, 0.0, tpot)
    alone = closed_loop_ttft(s, tpot, lengths.osl, replica.engine, "p50")
    queue = np.where(single, np.maximum(concurrency * s.prefill - alone, 0.0), queue)
    return ClosedLoop(replica, lengths, s, budget, tpot, queue, concurrency, layouts.attention_dp)


@dataclass(frozen=True, slots=True)
class StaticBatch:
    """One batch from start to end; seconds, and requests/s over its duration."""

    memory: Memory
    ttft: Array
    tpot: Array
    duration: Array
    rate: Array


def static_batch(replica: Replica, layouts: Layouts, batch: Array, lengths: Lengths) -> StaticBatch:
    """``batch`` equal requests per attention rank that start together and run to the end.

    duration = waves * (prefill + (osl-1) * D(batch, mean context)); a batch larger than the KV cache runs in waves,
    batch/slots times the time of one (e2e_learnings, section 1).
    """
    budget = memory(replica, layouts, lengths, together=True)
    slots = np.maximum(budget.slots, 1.0)
    together, waves = np.minimum(batch, slots), np.maximum(batch / slots, 1.0)
    prefill = _prefill_together(replica, layouts, together, lengths)
    work = Work(sequences=together / layouts.pp, context=lengths.decode_context)
    decode = iteration_seconds(replica, layouts, work) / replica.tokens_per_step
    decodes = np.maximum(floats(lengths.osl) - 1.0, 0.0)
    duration = waves * (prefill + decodes * decode)
    rate = batch * layouts.attention_dp / duration
    return StaticBatch(budget, prefill, decode * waves, duration, rate)


def _prefill_together(replica: Replica, layouts: Layouts, batch: Array, lengths: Lengths) -> Array:
    """Seconds until all prompts of a batch are prefilled, in full chunks; chunks overlap over pipeline stages."""
    engine = replica.engine
    prompts = np.clip(np.floor(engine.chunk_tokens / lengths.new), 1.0, batch)
    pieces = np.maximum(np.ceil(lengths.new / engine.chunk_tokens), 1.0)
    prefix = floats(lengths.cached) + (lengths.new - lengths.new / pieces) / 2
    work = Work(chunk=lengths.new * prompts / pieces, prefix=prefix, prompts=prompts)
    rounds = batch / prompts * pieces
    stages = (rounds + layouts.pp - 1) / layouts.pp
    return floats(iteration_seconds(replica, layouts, work) * stages)


class _Grid:
    """Steps on a geometric grid of batches for every row, linear in between."""

    def __init__(self, replica: Replica, layouts: Layouts, largest: Array, lengths: Lengths) -> None:
        top = max(float(largest.max()), 2.0)
        self.knots = np.geomspace(1.0, top, _KNOTS)
        self.steps = steps(replica, layouts.column(), self.knots[None, :], lengths.column(len(largest)))
        self.rows = np.arange(len(largest))

    def at(self, batch: Array) -> Steps:
        """Steps at ``batch`` [rows]; below the first knot the first is taken."""
        right = np.clip(np.searchsorted(self.knots, batch), 1, _KNOTS - 1)
        left = right - 1
        share = np.clip((batch - self.knots[left]) / (self.knots[right] - self.knots[left]), 0.0, 1.0)

        def pick(table: Array) -> Array:
            full = np.broadcast_to(table, (len(self.rows), _KNOTS))
            return np.asarray(full[self.rows, left] * (1 - share) + full[self.rows, right] * share)

        s = self.steps
        return Steps(
            batch,
            pick(s.decode),
            pick(s.prefill),
            pick(s.own_prefill),
            pick(s.chunks),
            pick(s.together),
            pick(s.chunk_load),
            s.tokens,
            s.variance,
        )
