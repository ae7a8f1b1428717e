"""Aggregated serving: one pool of GPUs prefills and decodes, with continuous batching and chunked prefill.

Steady state of one replica, per attention rank, with B running decodes:

* D(B): one decode iteration; P(B): what prefilling one prompt adds to the iterations it rides in.
* A request decodes for osl-1 iterations and meets on average (B-1)/(osl-1) other prompts per iteration, so
  TPOT = D + (B-1)/(osl-1) * P in a closed loop, and B/(osl-1) under Poisson arrivals, who see time averages (PASTA).
* Little: rate per rank = B / ((osl-1) * TPOT).
Source: design notes e2e_learnings section 3; the interference law was fitted there at 0.995 of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica

IntArray = NDArray[np.int_]
# Prompts of one micro-batch beyond which the law hardly changes, and terms that reach its Poisson tail.
_MOST_RIDING, _COUNTS = 16.0, 60


@dataclass(frozen=True, slots=True)
class Steps:
    """Times of one replica at ``batch`` running decodes per attention rank, in seconds.

    ``decode`` one pure decode iteration over the ``tokens`` of a request that it yields (1 without speculation, with
    ``variance`` zero); ``prefill`` what one prompt adds to the pace of everybody else;
    ``own_prefill`` how long a prompt takes from its first chunk to its last; ``chunks`` iterations for that;
    ``together`` attention ranks that carry a chunk when any does;
    ``chunk_load`` prompt tokens that come per iteration over those that an iteration takes, above 1 out of reach.
    """

    batch: Array
    decode: Array
    prefill: Array
    own_prefill: Array
    chunks: Array
    together: Array
    chunk_load: Array
    tokens: float = 1.0
    variance: float = 0.0

    @property
    def iteration(self) -> Array:
        """Seconds of a pure decode iteration."""
        return self.decode * self.tokens


def steps(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths) -> Steps:
    """Evaluate decode and prefill times for every layout and batch (two passes over the operators)."""
    running = floats(batch)
    # A micro-batch holds whole requests: one alone passes all stages by itself.
    micro = np.maximum(running / layouts.pp, np.minimum(running, 1.0))
    context, single = lengths.decode_context, lengths.single_token
    micro = np.where(single, 0.0, micro)
    pure = np.where(single, 0.0, iteration_seconds(replica, layouts, Work(sequences=micro, context=context)))
    tokens = replica.tokens_per_step
    exclusive = replica.engine.prefill == "exclusive"
    budget = replica.engine.chunk_tokens - (0.0 if exclusive else micro * replica.verified)
    chunk = np.minimum(lengths.new, np.maximum(budget, replica.engine.block_tokens))
    chunks = np.ceil(lengths.new / chunk)
    chunk = lengths.new / chunks
    prefix = floats(lengths.cached) + (lengths.new - chunk) / 2
    # Each of the running requests brings its chunks once in osl-1 tokens; above one at a time they ride together.
    riding = np.where(single, 1.0, micro / (lengths.decodes / tokens) * chunks)
    seats = np.maximum(budget / chunk, 1.0)
    # An engine that looks at its queue now and then finds all prompts that came since.
    found = riding * (replica.engine.receive_interval if exclusive else 1.0)
    prompts = np.clip(found, 1.0, seats)
    together, stalls = barrier(riding, layouts.attention_dp)
    beside = Work(0.0 if exclusive else micro, context, chunk * prompts, prefix, prompts, together)
    mixed = iteration_seconds(replica, layouts, beside)
    added = (mixed if exclusive else np.maximum(mixed - pure, 0.0)) * chunks / prompts
    pace = pipeline_pace(np.where(single, 0.0, riding), layouts.pp)
    # Chunks follow each other through the stages: the last one leaves pp-1 stage times after it entered.
    fill = (chunks + layouts.pp - 1) / (chunks * layouts.pp)
    own = mixed * chunks * fill
    prefill = added * pace * stalls
    return Steps(running, pure / tokens, prefill, own, chunks, together, riding / seats, tokens, replica.step_variance)


def pipeline_pace(riding: Array, stages: Array) -> Array:
    """Share of its prefill time by which a prompt delays the micro-batches of a full pipeline.

    Micro-batches pass the stages one behind the other, so each round lasts as long as the one with most prompts. With
    Poisson numbers of mean ``riding`` in each of ``stages`` micro-batches that is E[max] of them; they carry
    stages*riding prompts together. 1 for a single stage or rare prompts, towards 1/stages where all carry many.

    Against a plain simulation of a chain of stages, one micro-batch at a time (prompts of 2 to 10 decode times, riding
    0.02 to 4): within 4 % at 2 stages, 8 % above at 4, 13 % above at 8; tests/serving/test_pipeline_pace.py.
    """
    if not np.any(stages > 1):
        return np.ones(1)
    if stages.shape[1:] == (1,) and len(riding) == len(stages) and (stages == 1).any():
        pace, piped = np.ones(np.broadcast(riding, stages).shape), stages[:, 0] > 1
        pace[piped] = pipeline_pace(riding[piped], stages[piped])
        return pace
    mean = np.clip(riding, 1e-6, _MOST_RIDING)
    below = term = np.exp(-mean)
    most = np.zeros(np.broadcast(mean, stages).shape)
    for count in range(1, _COUNTS):
        most = most + 1.0 - np.minimum(below, 1.0) ** stages
        term = term * mean / count
        below = below + term
    return np.where(stages > 1, most / (stages * mean), 1.0)


def barrier(riding: Array, ranks: Array) -> tuple[Array, Array]:
    """What attention data parallelism does to prefill, when each rank carries ``riding`` chunks per iteration.

    All ranks wait for the slowest one, so a chunk on any of them stalls all. With independent arrivals some rank
    carries one in a share q = 1 - (1 - riding)^ranks of the iterations.

    Returns
    -------
    ranks that carry a chunk when any does, ranks*riding/q, and how often a rank is stalled per chunk of its own,
    q/riding: 1 for a single rank or under full load, up to ``ranks`` when chunks are rare.
    """
    share = np.clip(riding, 1e-9, 1.0)
    any_rank = -np.expm1(ranks * np.log1p(-np.minimum(share, 1.0 - 1e-12)))
    return ranks * share / any_rank, any_rank / share


def tpot_mean(s: Steps, osl: ArrayLike, *, others: Array) -> Array:
    """D + others/(osl-1) * P: each of the ``others`` in flight prefills once in its osl-1 decode iterations."""
    return s.decode + others / np.maximum(floats(osl) - 1.0, 1.0) * s.prefill


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Steady state under Poisson arrivals at the rate that keeps ``batch`` decodes running per rank.

    ``rate`` requests/s of the whole replica; ``prefill_load`` share of time that prefill takes;
    ``alone`` seconds per token of one request, ``batch_slope`` what a further running request adds to an iteration.
    Answers of one token have no TPOT: 0.
    """

    steps: Steps
    memory: Memory
    rate: Array
    tpot: Array
    prefill_load: Array
    alone: Array
    batch_slope: Array

    def picked(self, column: IntArray) -> OpenLoop:
        """Of points [layouts, batches] the one of each layout in ``column`` [layouts], as [layouts, 1]."""
        rows = np.arange(len(column))
        shape = np.broadcast_shapes(self.rate.shape, self.prefill_load.shape, (len(column), 1))

        def pick(values: Array) -> Array:
            return np.asarray(np.broadcast_to(values, shape)[rows, column][:, None])

        s = self.steps
        few = Steps(
            pick(s.batch), pick(s.decode), pick(s.prefill), pick(s.own_prefill), pick(s.chunks), pick(s.together),
            pick(s.chunk_load), s.tokens, s.variance,
        )  # fmt: skip
        return OpenLoop(
            few, self.memory, pick(self.rate), pick(self.tpot), pick(self.prefill_load), self.alone,
            pick(self.batch_slope),
        )  # fmt: skip


def open_loop(
    replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths, *, alone: Array | None = None
) -> OpenLoop:
    """Operating points by running batch: the rate follows from Little's law, so nothing has to be solved for.

    ``alone`` of another open loop of the same layouts spares its evaluation.
    """
    s = steps(replica, layouts, batch, lengths)
    budget = memory(replica, layouts, lengths)
    single = lengths.single_token
    tpot = np.where(single, 0.0, tpot_mean(s, lengths.osl, others=s.batch))
    # Without a decode the batch stands for the load of the prefill server: busy a share B/(1+B) of the time.
    prompts_only = s.batch / (1.0 + s.batch) / s.prefill
    per_rank = np.where(single, prompts_only, s.batch / np.where(single, 1.0, lengths.decodes * tpot))
    load = per_rank * s.prefill
    if alone is None:
        alone = iteration_seconds(replica, layouts, Work(sequences=1.0, context=lengths.decode_context)) / s.tokens
    slope = np.maximum(s.decode - alone, 0.0) / np.maximum(s.batch, 1.0)
    return OpenLoop(s, budget, per_rank * layouts.attention_dp, tpot, load, alone, slope)
