"""Re-check a ranked candidate against a request stream: averages hide queueing, bursts and preemption."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from planner.job.job import Job
from planner.plan import Performance, significant
from planner.planned import Verdict, latency_ms
from planner.search.ranking import Candidate, Outcome, RankKey, rank_key
from planner.search.rerate import at_rate
from planner.serving.latency import STATISTICS
from planner.simulation.hopeless import TOLERANCE, WARM_UP, Hopeless
from planner.simulation.metrics import Statistic, Summary, Target, summarize
from planner.simulation.part import Part
from planner.simulation.records import Records
from planner.simulation.simulator import Run, simulate
from planner.simulation.tables import Tables
from planner.units import format_duration

TRIFLE = 0.005
# Plans that are simulated beyond twice as many as asked, so that one that moves up is not shown unchecked.
_FURTHER = 4
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
    part = Part.of(candidate, job)
    hopeless = Hopeless(job.slo, part.count)
    run = _simulated(part, tables, hopeless)
    if hopeless.missed:
        return None
    checked = _judged(part, run)
    return None if checked.problem else checked


def _run(candidate: Candidate, job: Job, tables: Tables) -> Checked:
    part = Part.of(candidate, job)
    return _judged(part, _simulated(part, tables))


def _simulated(part: Part, tables: Tables, hopeless: Hopeless | None = None) -> Run:
    """A run to its end, or until a limit is ``hopeless``."""
    count = part.count

    def enough(records: Records) -> bool:
        return len(records) >= count or (hopeless is not None and hopeless(records))

    deployed = part.deployed(tables)
    return simulate(
        deployed, part.stream(deployed), details=False, enough=enough,
        first_token=None if hopeless is None else hopeless.first_token,
    )  # fmt: skip


def _judged(part: Part, run: Run) -> Checked:
    """What a run to its end says of the candidate."""
    slo = part.job.slo
    summary = summarize(run, Target(slo.ttft, slo.tpot, slo.e2e), warm_up=WARM_UP)
    problem = _problem(summary, part.job) if run.finished else "simulated requests do not fit the memory of a rank"
    slightly = None if problem else _slightly(summary, part.job)
    return Checked(part.candidate, summary, 1.0 / part.share, problem, slightly_over=slightly)


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
    do not. Plans that move up are simulated in their turn, until the first ``simulate_top`` all are, or twice as many
    and a few more.
    """
    key = rank_key(outcome.objective, job.slo.percentile)
    tables = Tables()
    entries = [_Entry(candidate, key) for candidate in outcome.ranked]
    for done in range(2 * job.simulate_top + _FURTHER):
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
    # Separate pools start in full swing: requests of a closed loop come as fast as others end.
    ending = s.requests_per_s if c.mode == "aggregated" else s.stability.offered_per_s
    rate = c.rate if served else ending * checked.scale
    output = c.output_rate if served else rate * c.osl
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
