"""A prefill pool: replicas that only compute prompts, each a server that takes several prompts at once.

One replica serves M = attention ranks * seats prompts together, a prompt alone in t(1), all M in t(M), in between
linearly with slope b; s = b/t(1) is 0 where further prompts are free and 1 where each takes as long as the first.
Prompts that arrive during an iteration go into the next one (gated bulk service), each bound on arrival to the rank
with the fewest prompts. With r prompts/s of one replica, n replicas, load rho = r*t(M)/M, a = sqrt(2(n+1)) - 1
(Sakasegawa, 1977):

* An iteration carries r*t prompts, so it takes t = (t(1)-b)/(1-r*b); one that a prompt finds running draws the others
  that come meanwhile, T = t(1)/(1-r*b). A prompt sees own = t + (T-t)*h, h = u^(2(a-1))/(1+n) and towards 1 near the
  capacity of replicas to which company brings nothing: + (1-h)*s^2*rho^16.
* It meets no idle replica with probability met = u^a; u is rho where company brings nothing, else up to x/(x+exp(-x)),
  x = r*own: an iteration is followed by the next unless nobody came.
* It then waits for the share w of own: half of it over sqrt(n) before servers of one seat, which are out of step; up to
  all of it where there are many seats, for the rank with the fewest prompts has just begun.
* And it waits for whole iterations before its own, rho^(a+1+7(1-s)(t(M)/t(1)-1)) / (1-rho) * t(M)/(2nM): the M/D/1
  queue for one seat; the less, the more a short iteration leaves of the time of a full one.

Against an event simulation over 1 to 40 replicas, 1 to 16 ranks, 1 to 8 seats and loads of 0.3 to 0.95, wait and own
time together are 6 % off in the mean and 9 % at p95 (tests/serving/test_prefill_wait.py), on the side of too long
where prompts gain nothing from company (10 and 13 %). The exponents 16 and 7, and how w goes from one to the other,
were chosen to fit that simulation; no measurement went into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from planner.job.slo import QUANTILE
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.replica import Replica

# What a load below 1 leaves free where short iterations take less time: exponent of the load per relative extra time.
_ROOM = 7.0
# Near its capacity a replica to which company brings nothing is crowded all the time: exponent of the load.
_CROWD = 16.0


@dataclass(frozen=True, slots=True)
class PrefillTimes:
    """One replica, in seconds, shapes of the layouts.

    ``alone`` a prompt by itself keeps the replica busy that long, ``full`` all ``together`` prompts at once do;
    ``stretch`` own time over busy time (the fill of a pipeline); ``chunks`` pieces of a prompt. ``capacity`` requests/s
    of one replica that never idles; ``slope`` seconds that a further prompt adds to an iteration.

    ``_serial`` is that time over that of the first prompt: 1 where they gain nothing from company.
    """

    alone: Array
    full: Array
    together: Array
    stretch: Array
    chunks: Array
    memory: Memory
    capacity: Array = field(init=False)
    slope: Array = field(init=False)
    _serial: Array = field(init=False)
    _single: Array = field(init=False)
    _room: Array = field(init=False)

    def __post_init__(self) -> None:
        extra = np.maximum(self.full - self.alone, 0.0)
        slope = extra / np.maximum(self.together - 1.0, 1.0)
        serial = np.minimum(slope / self.alone, 1.0)
        for name, value in {
            "capacity": self.together / self.full,
            "slope": slope,
            "_serial": serial,
            "_single": 1.0 / (1.0 + (self.together - 1.0) * (1.0 - serial)) ** 2,
            "_room": _ROOM * (1.0 - serial) * extra / self.alone,
        }.items():
            object.__setattr__(self, name, np.asarray(value))

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
            alone, full, together, pick(self.stretch), pick(self.chunks),
            self.memory.rows(kept, wide_rows),
        )  # fmt: skip

    def busy(self, rate: ArrayLike) -> Array:
        """Seconds of one iteration of prompts at ``rate`` requests/s of one replica: t = t(1) + slope*(rate*t - 1)."""
        return self._within((self.alone - self.slope) / np.maximum(1.0 - floats(rate) * self.slope, 1e-9))

    def own(self, rate: ArrayLike, replicas: ArrayLike) -> Array:
        """Seconds from the first chunk of a prompt to its last, in the company of those that came while it waited."""
        return self._met(rate, replicas) * self.stretch

    def _within(self, seconds: Array) -> Array:
        return np.asarray(np.minimum(np.maximum(seconds, self.alone), np.maximum(self.full, self.alone)))

    def _followed(self, rate: ArrayLike, rho: Array, seconds: Array) -> Array:
        """Probability that an iteration of ``seconds`` is followed by another one, no less than the load."""
        came = floats(rate) * seconds
        return np.where(self.together > 1.0, np.maximum(came / (came + np.exp(-came)), rho), rho)

    def _met(self, rate: ArrayLike, replicas: ArrayLike) -> Array:
        """Seconds of the iteration that a prompt is part of."""
        usual, n = self.busy(rate), floats(replicas)
        drawn = self._within(self.alone / np.maximum(1.0 - floats(rate) * self.slope, 1e-9))
        rho = np.minimum(floats(rate) / self.capacity, 1.0)
        seen = self._followed(rate, rho, usual) ** (2.0 * (_power(n) - 1.0)) / (1.0 + n)
        seen = seen + (1.0 - seen) * self._serial**2 * rho**_CROWD
        return np.asarray(usual + (drawn - usual) * seen)

    def wait(self, rate: ArrayLike, replicas: ArrayLike, statistic: str) -> Array:
        """Seconds before the first chunk at ``rate`` requests/s of one replica; inf from the capacity on."""
        return self.wait_and_own(rate, replicas, statistic)[0]

    def wait_and_own(self, rate: ArrayLike, replicas: ArrayLike, statistic: str) -> tuple[Array, Array]:
        """Seconds of `wait` and of `own`, which share most of their work."""
        load, n = floats(rate) / self.capacity, floats(replicas)
        stable = load < 1.0
        rho = np.where(stable, load, 0.5)
        own = self._met(rate, n)
        power = _power(n)
        share = self._single * 0.5 * n**-0.5 + (1.0 - self._single) * (1.0 - 0.5 * n**-0.3)
        queue = rho ** (power + 1.0 + self._room) / (1.0 - rho) / (2.0 * n * self.capacity)
        met = (rho + (self._followed(rate, rho, own) - rho) * (1.0 - self._serial**2)) ** power
        if statistic == "mean":
            return np.where(stable, met * share * own + queue, np.inf), own * self.stretch
        quantile = QUANTILE[statistic]
        within = np.clip((quantile - 1.0 + met) / np.maximum(met, 1e-12), 0.0, 1.0)
        running = own * np.minimum(1.0, 2.0 * share * within)
        waited = running + _beyond(queue, rho**power, 1.0 - quantile)
        return np.where(stable, waited, np.inf), own * self.stretch


def _power(replicas: Array) -> Array:
    """Exponent of the probability that none of ``replicas`` is idle."""
    return np.asarray(np.sqrt(2.0 * (replicas + 1.0)) - 1.0)


def _beyond(mean: Array, met: Array, tail: float) -> Array:
    """What is exceeded with probability ``tail`` if P(W > t) = met*exp(-met*t/mean)."""
    safe = np.maximum(met, 1e-12)
    return np.where(met > tail, mean / safe * np.log(np.maximum(safe, tail) / tail), 0.0)


def prefill_times(replica: Replica, layouts: Layouts, lengths: Lengths) -> PrefillTimes:
    """Evaluate a prompt alone and a full replica, for every layout (two passes over the operators).

    Prompts above the chunk size run chunk after chunk, shorter ones share an iteration; prefix hits are not computed,
    but read. A full replica waits for the rank that is farthest in its prompt.
    """
    replica = replica.prefilling
    budget = memory(replica, layouts, Lengths(lengths.isl, 1.0, lengths.cached))
    chunks = np.ceil(lengths.new / replica.engine.chunk_tokens)
    chunk = lengths.new / chunks
    seats = np.clip(np.floor(replica.engine.chunk_tokens / chunk), 1.0, np.maximum(np.floor(budget.slots), 1.0))
    seats = np.where(chunks > 1, 1.0, seats)
    prefix = floats(lengths.cached) + (lengths.new - chunk) / 2
    alone = iteration_seconds(replica, layouts, Work(chunk=chunk, prefix=prefix, prefilling=1.0))
    behind = floats(lengths.cached) + chunk * last_of(chunks, layouts.attention_dp)
    full = iteration_seconds(replica, layouts, Work(chunk=chunk * seats, prefix=behind, prompts=seats))
    busy = chunks / layouts.pp
    stretch = (chunks + layouts.pp - 1.0) / chunks
    together = seats * layouts.attention_dp
    rows = 0.0 * full
    return PrefillTimes(
        alone * busy, full * busy, together + rows, stretch, chunks + rows, budget
    )  # fmt: skip


def last_of(chunks: ArrayLike, ranks: ArrayLike) -> Array:
    """Chunks that the farthest of ``ranks`` has behind it in a prompt of so many, each anywhere in its own: E[max] of n
    numbers drawn from 0 ... c-1, which is (c-1)/2 for one rank."""
    c, n = floats(chunks), floats(ranks)
    expected = np.zeros(np.broadcast_shapes(c.shape, n.shape))
    for j in range(1, int(c.max())):
        expected = expected + np.where(j < c, 1.0 - (np.minimum(j, c) / c) ** n, 0.0)
    return expected
