"""Re-check a ranked candidate against a request stream: averages hide queueing, bursts and preemption."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from planner.job.job import Job
from planner.plan import Performance, significant
from planner.planned import Verdict, latency_ms
from planner.search.candidates import lengths_of
from planner.search.ranking import Candidate, Outcome, RankKey, rank_key
from planner.search.rerate import at_rate
from planner.serving.latency import STATISTICS
from planner.serving.lengths import Lengths
from planner.simulation.deploy import Served, deployment
from planner.simulation.hopeless import TOLERANCE, WARM_UP, Hopeless
from planner.simulation.metrics import Statistic, Summary, Target, summarize
from planner.simulation.records import Records
from planner.simulation.settings import Deployment
from planner.simulation.simulator import Run, Stream, simulate
from planner.simulation.streams import Amid, ClosedLoop, EvenPoisson, Fixed, OpenStream, Uniform
from planner.simulation.tables import Tables
from planner.units import format_duration

TRIFLE = 0.005
_IN_FLIGHT = 120
_LIFETIMES = 7
_FEWEST, _MOST = 500, 1600
# A run of fewer lifetimes starts in full swing, as its warm-up would not fill the batch; of a split fewer will do then.
_FILLS, _STEADY = 4, 800
PROBLEM = "demoted: "
DERATES = (0.95, 0.88, 0.78, 0.65)


@dataclass(frozen=True, slots=True)
class Checked:
    """A candidate as simulated. ``scale`` replicas of the plan per simulated one; ``problem`` says which limit fails;
    ``derated`` is the share of the analytic rate that keeps the limits (1: all of it); ``slightly_over`` says which
    limit is passed by no more than the simulation's own error."""

    candidate: Candidate
    summary: Summary
    scale: float
    problem: str | None = None
    derated: float = 1.0
    slightly_over: str | None = None


def check(candidate: Candidate, job: Job, tables: Tables | None = None) -> Checked:
    """Simulate a candidate at its load, with the ``tables`` of those before it.

    Where the load was the planner's choice (goodput) and the limits do not hold, it is lowered until they do; a given
    rate or concurrency is not touched, and the candidate carries its problem instead.
    """
    tables = tables or Tables()
    if job.workload.rate is not None or job.workload.concurrency is not None:
        return _run(candidate, job, tables)
    for share in (1.0, *DERATES):
        checked = _kept(candidate if share == 1.0 else at_rate(candidate, candidate.rate * share), job, tables)
        if checked is not None:
            return replace(checked, derated=share)
    return _run(candidate, job, tables)


def _kept(candidate: Candidate, job: Job, tables: Tables) -> Checked | None:
    """Simulate a candidate at its load; None where it misses a limit, which a run says before its end."""
    part = _Part.of(candidate, job)
    hopeless = Hopeless(job.slo, part.stream.count)
    run = part.simulated(tables, hopeless)
    if hopeless.missed:
        return None
    checked = part.judged(run)
    return None if checked.problem else checked


def _run(candidate: Candidate, job: Job, tables: Tables) -> Checked:
    part = _Part.of(candidate, job)
    return part.judged(part.simulated(tables))


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of a candidate that is simulated: ``ranks`` attention ranks of ``replicas`` replicas, a ``share`` of
    all, and the requests that they get."""

    candidate: Candidate
    job: Job
    replicas: int
    ranks: int
    share: float
    stream: OpenStream | ClosedLoop

    @classmethod
    def of(cls, candidate: Candidate, job: Job) -> _Part:
        """As little as shows what all of it does."""
        replicas, ranks = simulated_part(candidate)
        share = replicas * ranks / (candidate.instances * candidate.ranks)
        return cls(candidate, job, replicas, ranks, share, _stream(candidate, job, share))

    def simulated(self, tables: Tables, hopeless: Hopeless | None = None) -> Run:
        """A run to its end, or until a limit is ``hopeless``."""

        def enough(records: Records) -> bool:
            return len(records) >= self.stream.count or (hopeless is not None and hopeless(records))

        return simulate(
            _deployed(self.candidate, self.job, self.replicas, self.ranks, tables),
            _in_full_swing(self.stream, self.candidate, self.share),
            details=False, enough=enough, first_token=None if hopeless is None else hopeless.first_token,
        )  # fmt: skip

    def judged(self, run: Run) -> Checked:
        """What a run to its end says of the candidate."""
        slo = self.job.slo
        summary = summarize(run, Target(slo.ttft, slo.tpot, slo.e2e), warm_up=WARM_UP)
        problem = _problem(summary, self.job)
        slightly = None if problem else _slightly(summary, self.job)
        return Checked(self.candidate, summary, 1.0 / self.share, problem, slightly_over=slightly)


def _deployed(candidate: Candidate, job: Job, replicas: int, ranks: int, tables: Tables) -> Deployment:
    """The pools of a candidate with ``replicas`` of ``ranks`` attention ranks decoding, the others in proportion."""
    lengths, tpot = lengths_of(job.workload), candidate.per_replica.tpot["mean"]
    decode = Served(candidate.replica, candidate.layout, replicas, lengths)
    if candidate.mode == "aggregated":
        return deployment(decode, tpot, tables=tables)
    from planner.search.split_metrics import split_workers
    from planner.simulation.deploy_split import split_deployment, split_model

    if candidate.mode == "af":
        decode = replace(split_model(split_workers(candidate), lengths), replicas=replicas)
    decode = replace(decode, ranks=ranks, planned=candidate.instances)
    first = candidate.pools[0]
    count = first.replicas * replicas * ranks // (candidate.instances * candidate.ranks)
    prompt = Lengths(lengths.isl, 1.0, lengths.cached)
    prefill = Served(first.replica, first.layout, count, prompt, planned=first.replicas)
    return split_deployment(prefill, decode, tpot, tables=tables)


def simulated_replicas(candidate: Candidate) -> int:
    """Replicas to simulate: equal ones behave alike, so a few hundred requests in flight are enough.

    Pools keep their proportions, so a split whose counts share no factor is simulated whole.
    """
    per_replica = candidate.per_replica.batch * candidate.ranks
    enough = max(1, min(candidate.instances, int(_IN_FLIGHT / max(per_replica, 1e-9))))
    if candidate.mode == "aggregated":
        return enough
    common = math.gcd(candidate.pools[0].replicas, candidate.instances)
    unit = candidate.instances // common
    return unit * min(common, max(1, round(enough / unit)))


def simulated_part(candidate: Candidate) -> tuple[int, int]:
    """Replicas to simulate, and attention ranks of each.

    The ranks of a decode pool are alike, and each may hold hundreds of requests: a part of them shows what all do, as
    far as the prefill replicas can be parted with them.
    """
    ranks = candidate.ranks
    if candidate.mode != "aggregated":
        every = candidate.instances * ranks
        smallest = every // math.gcd(every, candidate.pools[0].replicas)
        enough = _IN_FLIGHT / max(candidate.per_replica.batch, 1e-9)
        parts = [n for n in range(smallest, ranks + 1, smallest) if ranks % n == 0]
        if parts and parts[-1] >= enough:
            return 1, next(n for n in parts if n >= enough)
    return simulated_replicas(candidate), ranks


def _stream(candidate: Candidate, job: Job, share: float) -> OpenStream | ClosedLoop:
    """Poisson arrivals or a closed loop, long enough for several generations of requests."""
    prompt, output = Fixed(max(1, round(job.workload.isl))), Fixed(max(1, round(job.workload.osl)))
    hit = job.workload.prefix_hit
    in_flight = _in_flight(candidate, share)
    count = int(min(max(_LIFETIMES * in_flight, _FEWEST), _MOST))
    if job.workload.concurrency is not None:
        users = max(1, round(job.workload.concurrency * share))
        # Equal outputs would keep the users in step for ever, which no real load does.
        spread = Uniform(max(1, round(0.8 * job.workload.osl)), max(1, round(1.2 * job.workload.osl)))
        return ClosedLoop(users, prompt, spread, max(count, 4 * users), seed=job.seed, hit=hit)
    if candidate.mode != "aggregated" and in_flight * _FILLS > _MOST:
        count = _STEADY
    return OpenStream(EvenPoisson(candidate.rate * share), prompt, output, count, seed=job.seed, hit=hit)


def _in_full_swing(stream: OpenStream | ClosedLoop, candidate: Candidate, share: float) -> Stream:
    """The stream, amid running requests where it is over before it could fill the batch."""
    if isinstance(stream, ClosedLoop) or not isinstance(stream.outputs, Fixed) or not isinstance(stream.prompts, Fixed):
        return stream
    running = round(_in_flight(candidate, share))
    if running * _FILLS <= _MOST or stream.outputs.tokens < 2:
        return stream
    alone = candidate.mode == "aggregated"
    lead = 0.0 if alone else candidate.per_replica.ttft["mean"]
    ranks = 1 if alone else max(1, round(candidate.ranks * candidate.instances * share))
    return Amid(stream, stream.prompts.tokens, stream.outputs.tokens, running, lead, alone, ranks)


def _in_flight(candidate: Candidate, share: float) -> float:
    """Requests that decode in the simulated part of a plan."""
    return candidate.per_replica.batch * candidate.ranks * candidate.instances * share


def _problem(summary: Summary, job: Job) -> str | None:
    """Name the limit that the simulation misses most, or None."""
    if not summary.stability.stable:
        return str(summary.stability)
    worst = _worst(summary, job)
    if worst is None or worst.share <= 1 + TOLERANCE:
        return None
    return f"simulated {worst.name} {format_duration(worst.seconds)} misses {format_duration(worst.limit)}"


def _slightly(summary: Summary, job: Job) -> str | None:
    """Name the limit that the simulation passes by more than a trifle, though not by more than its own error."""
    worst = _worst(summary, job)
    if worst is None or not TRIFLE < worst.share - 1 <= TOLERANCE:
        return None
    return (
        f"simulated {worst.name} is {worst.share - 1:.1%} over {format_duration(worst.limit)}, which is within the "
        "simulation's own error: leave some room"
    )


class _Worst(NamedTuple):
    """The limit that a run comes closest to or passes most: its seconds, the limit, and their ratio."""

    name: str
    seconds: float
    limit: float
    share: float


def _worst(summary: Summary, job: Job) -> _Worst | None:
    p = job.slo.percentile
    seen = {"ttft": summary.ttft, "tpot": summary.tpot, "e2e": summary.end_to_end}
    rows = [(name, at(seen[name], p), limit) for name, limit in job.slo.limits.items()]
    known = [_Worst(f"{name} {p}", value, limit, value / limit) for name, value, limit in rows if value == value]
    return max(known, key=lambda row: row.share, default=None)


def at(statistic: Statistic, percentile: str) -> float:
    """Seconds at a percentile; nan where a run has none (outputs of one token have no TPOT)."""
    return float(getattr(statistic, percentile, math.nan))


def recheck(
    outcome: Outcome, job: Job, progress: Callable[[str], None] | None = None
) -> list[tuple[Candidate, Verdict | None]]:
    """Simulate the best plans and put them in their final order, best first.

    A plan whose load had to be lowered competes at the lower load, and one that misses a limit goes behind all that
    do not. Plans that move up are simulated in their turn, until the first ``simulate_top`` all are, or twice as many.
    """
    key = rank_key(outcome.objective, job.slo.percentile)
    tables = Tables()
    entries = [_Entry(candidate, key) for candidate in outcome.ranked]
    for done in range(2 * job.simulate_top):
        entries.sort(key=_Entry.place)
        following = next((e for e in entries[: job.simulate_top] if e.checked is None), None)
        if following is None:
            break
        if progress is not None:
            progress(f"simulating plan {done + 1}: {following.now.layout} x {following.now.replicas}")
        following.check(job, tables)
    entries.sort(key=_Entry.place)
    return [(entry.candidate, entry.verdict()) for entry in entries]


@dataclass(slots=True)
class _Entry:
    """A candidate on its way through the re-check, with the key that orders candidates."""

    candidate: Candidate
    key: RankKey
    checked: Checked | None = None
    _place: tuple[object, ...] | None = None

    def check(self, job: Job, tables: Tables) -> None:
        """Simulate it; it may get another place."""
        self.checked, self._place = check(self.candidate, job, tables), None

    def place(self) -> tuple[object, ...]:
        """What orders entries, computed once for each state: there are thousands of them."""
        if self._place is None:
            self._place = (self.failed, self.key(self.now))
        return self._place

    @property
    def now(self) -> Candidate:
        return self.candidate if self.checked is None else self.checked.candidate

    @property
    def failed(self) -> bool:
        return self.checked is not None and self.checked.problem is not None

    def verdict(self) -> Verdict | None:
        if self.checked is None:
            return None
        notes = []
        if self.checked.problem:
            notes.append(f"{PROBLEM}{self.checked.problem}")
        if self.checked.slightly_over:
            notes.append(self.checked.slightly_over)
        if self.checked.derated < 1:
            notes.append(
                f"load lowered to {self.checked.derated:.0%} of the closed form, where the simulation keeps the limits"
            )
        return Verdict(self.checked.candidate, performance(self.checked), tuple(notes))


def performance(checked: Checked) -> Performance | None:
    """The simulated numbers in the shape of the predicted ones, for the whole plan.

    None for an unstable system, which has no latencies: they would grow with the length of the run.
    """
    s, c = checked.summary, checked.candidate
    if not s.stability.stable:
        return None
    # A stable open loop serves what arrives; counting completions of a short run would add its fill and its noise.
    served = c.concurrency is None
    rate = c.rate if served else s.requests_per_s * checked.scale
    output = c.output_rate if served else s.output_tokens_per_s * checked.scale
    return Performance(
        output_tok_s=significant(output),
        output_tok_s_per_gpu=significant(output / c.gpus),
        request_rate=significant(rate),
        ttft_ms=latency_ms(_percentiles(s.ttft)),
        tpot_ms=latency_ms(_percentiles(s.tpot)),
        e2e_ms=latency_ms(_percentiles(s.end_to_end)),
    )


def _percentiles(statistic: Statistic) -> dict[str, float]:
    """Seconds by statistic; 0 where no request has one (outputs of one token have no TPOT)."""
    values = {name: float(getattr(statistic, name)) for name in STATISTICS}
    return {name: 0.0 if math.isnan(value) else value for name, value in values.items()}
