"""Replay a workload on a saved plan: another rate, other lengths, a recorded trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planner.errors import InputError
from planner.job.job import Job
from planner.job.traces import Trace
from planner.job.traffic import Traffic
from planner.plan import Plan, Pool, significant
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica
from planner.simulation.deploy import Served, deployment
from planner.simulation.deploy_split import split_deployment, split_model
from planner.simulation.metrics import Statistic, Summary, Target, summarize
from planner.simulation.settings import Deployment
from planner.simulation.simulator import Run, Stream, simulate
from planner.simulation.streams import (
    ClosedLoop,
    Deterministic,
    EvenPoisson,
    Fixed,
    Gamma,
    Lognormal,
    OnOff,
    OpenStream,
    Replay,
)
from planner.simulation.streams import Lengths as LengthDistribution

_DEFAULT_REQUESTS = 5000


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished simulation of a plan; ``dropped`` says which rows of a trace could not be read."""

    plan: Plan
    run: Run
    summary: Summary
    elapsed: float
    dropped: str | None = None
    limited: bool = False

    def record(self) -> dict[str, Any]:
        """The stable JSON: latencies are null when the system is unstable, because they would grow with the run."""
        s = self.summary
        return {
            "requests": self.run.finished,
            "submitted": self.run.submitted,
            "refused": self.run.refused,
            "interrupted": self.run.interrupted,
            "elapsed_s": round(self.elapsed, 3),
            "stable": s.stability.stable,
            "verdict": str(s.stability),
            "simulated": {
                "output_tok_s": _number(s.output_tokens_per_s),
                "output_tok_s_per_gpu": _number(s.output_tokens_per_s / self.plan.gpus_total),
                "request_rate": _number(s.requests_per_s),
                "ttft_ms": _milliseconds(s.ttft),
                "tpot_ms": _milliseconds(s.tpot),
                "itl_ms": _milliseconds(s.itl),
                "e2e_ms": _milliseconds(s.end_to_end),
            },
            "slo_attainment": _number(s.attainment) if self.limited else None,
            "goodput_rps": _number(s.goodput) if self.limited else None,
            "utilisation": _number(s.utilisation),
            "mean_batch": _number(s.mean_batch),
            "kv_occupancy": _number(s.kv_occupancy),
            "prefix_hit": _number(s.hit_share),
            "preemptions": s.preemptions,
            "trace_rows_dropped": self.dropped,
        }


def replay(
    plan: Plan,
    job: Job,
    replicas: Sequence[Replica],
    traffic: Traffic,
    progress: Callable[[int, int, float], None] | None = None,
) -> Replayed:
    """Simulate all pools of a plan under ``traffic``; ``replicas`` has one for each. Raises InputError for a trace that
    cannot be read.
    """
    trace = Trace(traffic.trace) if traffic.trace is not None else None
    lengths = _lengths(job, traffic, cached=trace is None)
    hash_tokens = trace.hash_tokens if trace is not None else None
    deployed = _deployed(plan, replicas, lengths, hash_tokens)
    started = time.perf_counter()
    stream = _stream(plan, job, traffic, trace)
    run = simulate(deployed, stream, progress=progress, max_requests=traffic.requests)
    summary = summarize(run, Target(job.slo.ttft, job.slo.tpot, job.slo.e2e))
    dropped = str(trace.report) if trace is not None and trace.report.malformed else None
    return Replayed(plan, run, summary, time.perf_counter() - started, dropped, bool(job.slo.limits))


def _deployed(plan: Plan, replicas: Sequence[Replica], lengths: Lengths, hash_tokens: int | None) -> Deployment:
    tpot = plan.predicted.tpot_ms.mean / 1e3
    pools = [
        Served(replica, layout_of(pool), pool.replicas, lengths)
        for pool, replica in zip(plan.pools, replicas, strict=True)
    ]
    if plan.mode == "aggregated" and len(pools) == 1:
        return deployment(pools[0], tpot, hash_tokens=hash_tokens)
    if plan.mode not in ("pd", "af"):
        raise InputError(f"a plan of mode {plan.mode} cannot be replayed", hint="aggregated, pd and af plans can")
    prompt = replace(pools[0], lengths=Lengths(lengths.isl, 1.0, lengths.cached))
    decode = pools[1] if plan.mode == "pd" else _attention_ffn(plan, replicas, lengths)
    return split_deployment(prompt, decode, tpot, hash_tokens=hash_tokens)


def _attention_ffn(plan: Plan, replicas: Sequence[Replica], lengths: Lengths) -> Served:
    """The instances that attention and feed-forward workers of a plan make up."""
    return replace(split_model(workers_of(plan, replicas), lengths), replicas=plan.pools[-1].instances)


def workers_of(plan: Plan, replicas: Sequence[Replica]) -> tuple[AttentionFfn, Workers]:
    """Attention and feed-forward workers of one instance of an AF plan; ``replicas`` has one for each pool."""
    sides = {pool.role: (pool, replica) for pool, replica in zip(plan.pools, replicas, strict=True)}
    (attention, first), (ffn, second) = sides["attention"], sides["ffn"]
    counts = attention.replicas // attention.instances, ffn.replicas // ffn.instances
    workers = Workers.one(layout_of(attention), layout_of(ffn), counts, attention.micro_batches)
    return AttentionFfn(first, second), workers


def layout_of(pool: Pool) -> Layout:
    """Split of the replicas of a pool."""
    x = pool.layout
    return Layout(x.tp, x.attention_dp, x.pp, x.ep, x.cp)


def _lengths(job: Job, traffic: Traffic, *, cached: bool) -> Lengths:
    """Lengths that size the KV cache; the assumed prefix hits do not apply to a trace, which shows its own."""
    isl, osl = float(traffic.isl or job.workload.isl), float(traffic.osl or job.workload.osl)
    return Lengths(isl, osl, isl * job.workload.prefix_hit if cached else 0.0)


def _stream(plan: Plan, job: Job, traffic: Traffic, trace: Trace | None) -> Stream:
    if trace is not None:
        return Replay(lambda: trace, traffic.speed, traffic.copies)
    hit = job.workload.prefix_hit
    prompts = _distribution(float(traffic.isl or job.workload.isl), traffic.spread)
    outputs = _distribution(float(traffic.osl or job.workload.osl), traffic.spread)
    count = traffic.requests or _DEFAULT_REQUESTS
    concurrency = traffic.concurrency or (None if traffic.rate else job.workload.concurrency)
    if concurrency is not None:
        return ClosedLoop(max(1, round(concurrency)), prompts, outputs, count, seed=traffic.seed, hit=hit)
    rate = traffic.rate or plan.predicted.request_rate
    return OpenStream(_process(rate, traffic), prompts, outputs, count, seed=traffic.seed, hit=hit)


def _process(rate: float, traffic: Traffic) -> EvenPoisson | Gamma | Deterministic | OnOff:
    match traffic.arrivals:
        case "poisson":
            return EvenPoisson(rate)
        case "gamma":
            return Gamma(rate, traffic.burstiness)
        case "deterministic":
            return Deterministic(rate)
        case _:
            return OnOff(rate, traffic.burstiness, traffic.burstiness)


def _distribution(mean: float, spread: float) -> LengthDistribution:
    return Lognormal(mean, spread) if spread > 0 else Fixed(max(1, round(mean)))


def _milliseconds(statistic: Statistic) -> dict[str, float | None]:
    names = ("mean", "p50", "p90", "p95", "p99")
    return {name: _number(getattr(statistic, name) * 1e3) for name in names}


def _number(value: float) -> float | None:
    return significant(value) if math.isfinite(value) else None
