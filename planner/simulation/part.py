"""The part of a plan that its re-check simulates, and the load that this part gets.

Equal replicas behave alike, so a few hundred requests in flight show what all do. A prefill pool is simulated whole,
because its queue depends on how many share it; behind it a few decode ranks get one of so many requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.job.job import Job
from planner.search.candidates import lengths_of
from planner.search.ranking import Candidate
from planner.serving.lengths import Lengths
from planner.simulation.deploy import Served, deployment
from planner.simulation.full_swing import Amid, ClosedAmid, Standing
from planner.simulation.settings import Deployment, Pool
from planner.simulation.simulator import Stream
from planner.simulation.streams import ClosedLoop, EvenPoisson, Fixed, OpenStream, Uniform
from planner.simulation.tables import Tables

# Requests in flight that are enough: of an aggregated pool, and of one that only decodes.
_IN_FLIGHT, _DECODING = 120, 60
_LIFETIMES = 7
# Requests of a run; the queue before a prefill pool needs more of them than a batch does.
_FEWEST, _FEWEST_SPLIT, _MOST = 500, 1000, 1600
# An aggregated run of fewer lifetimes starts in full swing, as its warm-up would not fill the batch.
_FILLS = 4
# Equal outputs would keep the users of a closed loop in step for ever, which no real load does.
_SPREAD = 0.2
# More users of a closed loop than these are parted, if the pools can be.
_USERS, _ENDLESS = 3000, 1 << 40


@dataclass(frozen=True, slots=True)
class Part:
    """What is simulated of a candidate: ``replicas`` of the pool that decodes, with ``ranks`` attention ranks each, and
    ``prefills`` of a pool before it; one of ``one_of`` requests decodes there. ``share`` of the whole load comes."""

    candidate: Candidate
    job: Job
    replicas: int
    ranks: int
    prefills: int = 0
    one_of: int = 1
    share: float = 1.0

    @classmethod
    def of(cls, candidate: Candidate, job: Job) -> Part:
        """As little as shows what all of it does."""
        if candidate.mode == "aggregated":
            replicas = simulated_replicas(candidate)
            return cls(candidate, job, replicas, candidate.ranks, share=replicas / candidate.instances)
        if job.workload.concurrency is None:
            return _behind_all_prefills(candidate, job)
        return _in_proportion(candidate, job)

    @property
    def count(self) -> int:
        """Requests that are looked at: several generations, or as many as show a prefill queue."""
        alone, users = self.candidate.mode == "aggregated", self.users if self.job.workload.concurrency else 0
        in_flight = self.candidate.per_replica.batch * self.ranks * self.replicas * self.one_of
        count = int(min(max(_LIFETIMES * in_flight, _FEWEST if alone else _FEWEST_SPLIT), _MOST))
        return max(count, 4 * users if alone else users)

    @property
    def users(self) -> int:
        """Users of a closed loop."""
        return max(1, round((self.job.workload.concurrency or 0) * self.share))

    def deployed(self, tables: Tables) -> Deployment:
        """The pools that are simulated, with the ``tables`` of those before them."""
        candidate, lengths = self.candidate, lengths_of(self.job.workload)
        tpot = candidate.per_replica.tpot["mean"]
        decode = Served(candidate.replica, candidate.layout, self.replicas, lengths)
        if candidate.mode == "aggregated":
            return deployment(decode, tpot, tables=tables)
        from planner.search.split_metrics import split_workers
        from planner.simulation.deploy_split import split_deployment, split_model

        if candidate.mode == "af":
            decode = replace(split_model(split_workers(candidate), lengths), replicas=self.replicas)
        decode = replace(decode, ranks=self.ranks, planned=candidate.instances)
        first, prompt = candidate.pools[0], Lengths(lengths.isl, 1.0, lengths.cached)
        prefill = Served(first.replica, first.layout, self.prefills, prompt, planned=first.replicas)
        return replace(split_deployment(prefill, decode, tpot, tables=tables), one_of=self.one_of)

    def stream(self, deployed: Deployment) -> Stream:
        """Poisson arrivals or a closed loop, in full swing where a run would be over before the batch is full."""
        workload, seed = self.job.workload, self.job.seed
        prompt, output = Fixed(max(1, round(workload.isl))), max(1, round(workload.osl))
        if workload.concurrency is not None:
            spread = Uniform(max(1, round((1 - _SPREAD) * output)), max(1, round((1 + _SPREAD) * output)))
            return self._closed(ClosedLoop(self.users, prompt, spread, self.count, seed=seed, hit=workload.prefix_hit))
        arrivals = EvenPoisson(self.candidate.rate * self.share)
        return self._open(
            OpenStream(arrivals, prompt, Fixed(output), self.count, seed=seed, hit=workload.prefix_hit), deployed.serve
        )

    def _open(self, stream: OpenStream, decode: Pool) -> Stream:
        standing = Standing(0, max(1, round(self.job.workload.isl)), max(1, round(self.job.workload.osl)), stream.hit)
        metrics, every = self.candidate.per_replica, self.ranks * self.replicas
        if self.candidate.mode == "aggregated":
            running = metrics.batch * every
            if running * _FILLS <= _MOST or standing.output < 2:
                return stream
            return Amid(stream, replace(standing, count=round(running)), 0.0, prefills=True)
        if standing.output < 2:
            return stream
        # A prefill pool at its capacity has a first token at the end of time; the stream itself does not last so long.
        lead = min(metrics.ttft["mean"], stream.count / (self.candidate.rate * self.share))
        rate = self.candidate.rate / (every * self.one_of)
        count = round(every * steady_batch(decode, rate, standing.prompt, standing.output))
        first, standing = self.candidate.pools[0], replace(standing, count=count, together=every)
        computing = round(min(first.batch * first.layout.attention_dp * first.replicas, stream.count))
        return Amid(stream, standing, lead, one_of=self.one_of, computing=computing)

    def _closed(self, loop: ClosedLoop) -> Stream:
        """Separate pools start with as many users at the prefill as the closed form has there."""
        prompt, output = max(1, round(self.job.workload.isl)), max(1, round(self.job.workload.osl))
        if self.candidate.mode == "aggregated" or output < 2:
            return loop
        metrics = self.candidate.per_replica
        waiting = round(self.users * metrics.ttft["mean"] / metrics.e2e["mean"])
        standing = Standing(self.users - waiting, prompt, output, loop.hit, _SPREAD)
        return ClosedAmid(replace(loop, users=0, count=_ENDLESS), standing, waiting)


def simulated_replicas(candidate: Candidate) -> int:
    """Aggregated replicas to simulate."""
    per_replica = candidate.per_replica.batch * candidate.ranks
    return max(1, min(candidate.instances, int(_IN_FLIGHT / max(per_replica, 1e-9))))


def _behind_all_prefills(candidate: Candidate, job: Job) -> Part:
    """The whole prefill pool, and the fewest decode ranks that hold enough requests: a divisor of those of a replica,
    or of the replicas."""
    first, ranks, replicas = candidate.pools[0], candidate.ranks, candidate.instances
    parts = [(1, n) for n in _divisors(ranks)] + [(n, ranks) for n in _divisors(replicas)[1:]]
    enough = _DECODING / max(candidate.per_replica.batch, 1e-9)
    part = next(((r, n) for r, n in parts if r * n >= enough), parts[-1])
    return Part(candidate, job, *part, prefills=first.replicas, one_of=replicas * ranks // math.prod(part))


def _in_proportion(candidate: Candidate, job: Job) -> Part:
    """Everything, or an equal part of every pool where that still leaves many users."""
    prefills, replicas = candidate.pools[0].replicas, candidate.instances
    most = int((job.workload.concurrency or 1) / _USERS)
    parts = max([n for n in _divisors(math.gcd(prefills, replicas)) if n <= most], default=1)
    return Part(candidate, job, replicas // parts, candidate.ranks, prefills=prefills // parts, share=1.0 / parts)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def steady_batch(pool: Pool, rate: float, prompt: int, output: int) -> float:
    """Requests that decode on a rank to which ``rate`` of them come per second, by the iteration times of the pool.

    Little's law: b = rate (output - 1) / tokens per iteration x t(b, context), at contexts in the middle of the output;
    as many as fit where there is no such b.
    """
    steps = pool.steps
    most = min(steps.max_sequences, pool.engine.max_sequences or steps.max_sequences)
    most = max(min(most, steps.kv_tokens // (prompt + output)), 1)
    iterations = (output - 1) / (pool.drafts.mean if pool.drafts else 1.0)

    def missing(batch: int) -> float:
        lane = max(1, -(-batch // pool.stages))
        return rate * iterations * steps.decode_steps(lane)(lane * (prompt + 0.5 * output)) - batch

    low, high = 0, most
    if missing(high) > 0:
        return float(most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if missing(middle) > 0 else (low, middle)
    before, behind = missing(low), missing(high)
    return low + before / (before - behind)
