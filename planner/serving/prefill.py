"""A prefill pool: replicas that only compute prompts, each a server that takes several prompts at once.

One replica serves M = attention ranks * seats prompts together, a prompt alone in t(1), all M in t(M), in between
linearly. Prompts that arrive during an iteration go into the next one (gated bulk service), so at rate r of one
replica m = r*t(m) prompts ride together. With n replicas behind a router that sends to the least loaded one, u the
share of time a replica is busy, rho = r*t(M)/M its load and a = sqrt(2(n+1)) - 1 (Sakasegawa, 1977):

  E[wait] = 1/(2n) * ( sqrt(n) * u^a * t(m) + rho^(a+1) / (1-rho) * ranks * t(M)/M )

the rest of the running iteration, and the queue. In one queue for all servers a prompt takes the first that is free and
the square root would be 1; a router binds it on arrival, so it waits for the end of an iteration that is not the next
to end. With the root the mean wait of bound prompts is within 10 % of simulated ones (n = 2, 4, 8, loads 0.7 to 0.9;
tests/serving/test_serving_pd.py). A prompt is bound to its attention rank when it arrives, so each rank
is a queue of its own and another rank that idles does not help: its server takes M/ranks prompts in t(M), in step with
the others. For n = M = 1 this is the M/D/1 wait rho*t/(2(1-rho)), and for rho -> 1 the heavy-traffic limit of the bulk
queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.job.slo import QUANTILE
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica


@dataclass(frozen=True, slots=True)
class PrefillTimes:
    """One replica, in seconds, shapes of the layouts.

    ``alone`` a prompt by itself keeps the replica busy that long, ``full`` all ``together`` prompts at once do;
    ``stretch`` own time over busy time (the fill of a pipeline); ``chunks`` pieces of a prompt; ``ranks`` attention
    ranks, each with a queue of its own.
    """

    alone: Array
    full: Array
    together: Array
    stretch: Array
    chunks: Array
    ranks: Array
    memory: Memory

    def rows(self, kept: ArrayLike, dimensions: int) -> PrefillTimes:
        """Return some rows of times whose first axis is the layouts, with ``dimensions`` axes of one element after it.

        The memory becomes flat rows.
        """

        def pick(values: Array) -> Array:
            wide = np.broadcast_to(values, np.broadcast_shapes(values.shape, self.full.shape))
            chosen = wide.reshape(wide.shape[0], -1)[np.asarray(kept, dtype=int), 0]
            return np.asarray(chosen.reshape(-1, *(1,) * dimensions))

        wide_rows = np.broadcast_shapes(self.full.shape, (1,))[0]
        alone, full, together = pick(self.alone), pick(self.full), pick(self.together)
        return PrefillTimes(
            alone, full, together, pick(self.stretch), pick(self.chunks), pick(self.ranks),
            self.memory.rows(kept, wide_rows),
        )  # fmt: skip

    @property
    def capacity(self) -> Array:
        """Requests/s of one replica that never idles."""
        return self.together / self.full

    def busy(self, rate: ArrayLike) -> Array:
        """Seconds of one iteration of prompts at ``rate`` requests/s of one replica: t = t(1) + slope*(rate*t - 1)."""
        slope = np.maximum(self.full - self.alone, 0.0) / np.maximum(self.together - 1.0, 1.0)
        shared = (self.alone - slope) / np.maximum(1.0 - floats(rate) * slope, 1e-9)
        return np.asarray(np.minimum(np.maximum(shared, self.alone), np.maximum(self.full, self.alone)))

    def own(self, rate: ArrayLike) -> Array:
        """Seconds from the first chunk of a prompt to its last."""
        return self.busy(rate) * self.stretch

    def wait(self, rate: ArrayLike, replicas: ArrayLike, statistic: str) -> Array:
        """Seconds before the first chunk at ``rate`` requests/s of one replica; inf from the capacity on."""
        load, servers = floats(rate) / self.capacity, floats(replicas)
        stable = load < 1.0
        rho = np.where(stable, load, 0.5)
        time = self.busy(rate)
        power = np.sqrt(2.0 * (servers + 1.0)) - 1.0
        met = np.minimum(floats(rate) * time, 1.0) ** power
        queue = rho ** (power + 1.0) / (1.0 - rho) * self.ranks / self.capacity
        mean = (time * met * np.sqrt(servers) + queue) / (2.0 * servers)
        return np.where(stable, _at(mean, met, statistic), np.inf)


def _at(mean: Array, met: Array, statistic: str) -> Array:
    """Wait at a statistic from its mean and the share ``met`` of prompts that wait: P(W > t) = met*exp(-met*t/mean)."""
    if statistic == "mean":
        return mean
    tail = 1.0 - QUANTILE[statistic]
    safe = np.maximum(met, 1e-12)
    return np.where(met > tail, mean / safe * np.log(np.maximum(safe, tail) / tail), 0.0)


def prefill_times(replica: Replica, layouts: Layouts, lengths: Lengths) -> PrefillTimes:
    """Evaluate a prompt alone and a full replica, for every layout (two passes over the operators).

    Prompts above the chunk size run chunk after chunk, shorter ones share an iteration; prefix hits are not computed,
    but read.
    """
    budget = memory(replica, layouts, Lengths(lengths.isl, 1.0, lengths.cached))
    chunks = np.ceil(lengths.new / replica.engine.chunk_tokens)
    chunk = lengths.new / chunks
    seats = np.clip(np.floor(replica.engine.chunk_tokens / chunk), 1.0, np.maximum(np.floor(budget.slots), 1.0))
    seats = np.where(chunks > 1, 1.0, seats)
    prefix = floats(lengths.cached) + (lengths.new - chunk) / 2
    alone = iteration_seconds(replica, layouts, Work(chunk=chunk, prefix=prefix, prefilling=1.0))
    full = iteration_seconds(replica, layouts, Work(chunk=chunk * seats, prefix=prefix, prompts=seats))
    busy = chunks / layouts.pp
    stretch = (chunks + layouts.pp - 1.0) / chunks
    together = seats * layouts.attention_dp
    rows = 0.0 * full
    return PrefillTimes(
        alone * busy, full * busy, together + rows, stretch, chunks + rows, layouts.attention_dp + rows, budget
    )  # fmt: skip
