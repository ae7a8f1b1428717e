"""Aggregated serving: one pool of GPUs prefills and decodes, with continuous batching and chunked prefill.

Steady state of one replica, per attention rank, with B running decodes:

* D(B): one decode iteration; P(B): what prefilling one prompt adds to the iterations it rides in.
* A request decodes for osl-1 iterations and meets on average (B-1)/osl other prompts per iteration, so
  TPOT = D + (B-1)/osl * P in a closed loop, and B/osl under Poisson arrivals, who see time averages (PASTA).
* Little: rate per rank = B / ((osl-1) * TPOT).
Source: design notes e2e_learnings section 3; the interference law was fitted there at 0.995 of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica


@dataclass(frozen=True, slots=True)
class Steps:
    """Times of one replica at ``batch`` running decodes per attention rank, in seconds.

    ``decode`` one pure decode iteration; ``prefill`` what one prompt adds to the pace of everybody else;
    ``own_prefill`` how long a prompt takes from its first chunk to its last; ``chunks`` iterations for that.
    """

    batch: Array
    decode: Array
    prefill: Array
    own_prefill: Array
    chunks: Array


def steps(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths) -> Steps:
    """Evaluate decode and prefill times for every layout and batch (two passes over the operators)."""
    running = floats(batch)
    micro = running / layouts.pp
    context = lengths.decode_context
    decode = iteration_seconds(replica, layouts, Work(sequences=micro, context=context))
    exclusive = replica.engine.prefill == "exclusive"
    budget = replica.engine.chunk_tokens - (0.0 if exclusive else micro)
    chunk = np.minimum(lengths.new, np.maximum(budget, replica.engine.block_tokens))
    chunks = np.ceil(lengths.new / chunk)
    chunk = lengths.new / chunks
    prefix = floats(lengths.cached) + (lengths.new - chunk) / 2
    beside = Work(sequences=0.0 if exclusive else micro, context=context, chunk=chunk, prefix=prefix)
    mixed = iteration_seconds(replica, layouts, beside)
    added = (mixed if exclusive else np.maximum(mixed - decode, 0.0)) * chunks
    # In a full pipeline a chunk that rides alone makes the other micro-batches queue behind it at every stage;
    # when all
    # of them carry chunks the stages share the work.
    carrying = np.minimum(micro / floats(lengths.osl) * chunks, 1.0)
    pace = 1.0 - carrying * (1.0 - 1.0 / layouts.pp)
    # Chunks follow each other through the stages: the last one leaves pp-1 stage times after it entered.
    fill = (chunks + layouts.pp - 1) / (chunks * layouts.pp)
    own = (added if exclusive else added + chunks * decode) * fill
    return Steps(running, decode, added * pace, own, chunks)


def tpot_mean(s: Steps, osl: ArrayLike, *, others: Array) -> Array:
    """D + others/osl * P: each of the ``others`` requests in flight prefills once per osl iterations."""
    return s.decode + others / floats(osl) * s.prefill


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Steady state under Poisson arrivals at the rate that keeps ``batch`` decodes running per rank.

    ``rate`` requests/s of the whole replica; ``prefill_load`` share of time that prefill takes;
    ``batch_slope`` seconds that
    a further running request adds to a decode iteration.
    """

    steps: Steps
    memory: Memory
    rate: Array
    tpot: Array
    prefill_load: Array
    batch_slope: Array


def open_loop(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths) -> OpenLoop:
    """Operating points by running batch: the rate follows from Little's law, so nothing has to be solved for."""
    s = steps(replica, layouts, batch, lengths)
    budget = memory(replica, layouts, lengths)
    tpot = tpot_mean(s, lengths.osl, others=s.batch)
    decodes = np.maximum(floats(lengths.osl) - 1.0, 1.0)
    per_rank = s.batch / (decodes * tpot)
    load = per_rank * s.prefill
    alone = iteration_seconds(replica, layouts, Work(sequences=1.0, context=lengths.decode_context))
    slope = np.maximum(s.decode - alone, 0.0) / np.maximum(s.batch, 1.0)
    return OpenLoop(s, budget, per_rank * layouts.attention_dp, tpot, load, slope)
