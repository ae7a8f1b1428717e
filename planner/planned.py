"""From what the search found to the plans that are saved: `plan_of` a candidate, and the `plan_file` of an outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from planner.catalog.bands import plan_band
from planner.job.job import Job
from planner.job.tuning import Tuning
from planner.plan import (
    FORMAT_VERSION,
    Certificate,
    Latency,
    ModeRow,
    Performance,
    Plan,
    PlanFile,
    Pool,
    PoolLayout,
    PoolMemory,
    PoolSpeculation,
    PoolStage,
    Provenance,
    RejectedRow,
    SearchInfo,
    significant,
)
from planner.search.ranking import Candidate, Outcome, Share
from planner.serving.layout import Layout
from planner.serving.replica import Replica
from planner.serving.speculation import Speculation
from planner.units import GIB
from planner.version import __version__


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the simulation says of a candidate: its performance there, what a user should know, and the candidate at the
    load that was simulated; None of performance where the system is unstable."""

    candidate: Candidate
    simulated: Performance | None
    notes: tuple[str, ...] = ()


UNMEASURED = "attention-FFN split: kernels and theory, held to one published deployment; measure before you build it"


def plan_of(candidate: Candidate, rank: int, outcome: Outcome, percentile: str, verdict: Verdict | None = None) -> Plan:
    """Write a candidate down as a plan, at the load of its ``verdict`` where it has one."""
    certificate = _certificate(candidate, outcome, percentile)
    candidate = verdict.candidate if verdict else candidate
    predicted = _performance(candidate)
    # No measured deployment splits attention from feed-forward blocks: such plans rest on kernels and theory.
    rests_on = [r for pool in candidate.pools for r in parts_of(pool.replica)]
    known = all(r.efficiency.calibrated_by for r in rests_on) and candidate.mode != "af"
    basis: Literal["modelled", "calibrated"] = "calibrated" if known else "modelled"
    spans = plan_band(candidate.mode, [a.family for pool in candidate.pools for a in pool.replica.accelerators])
    spans = _widened(spans, candidate.replica.speculation)
    shown = {
        "output_tok_s": predicted.output_tok_s,
        "tpot_ms": getattr(predicted.tpot_ms, percentile, predicted.tpot_ms.mean),
        "ttft_ms": getattr(predicted.ttft_ms, percentile, predicted.ttft_ms.mean),
    }
    return Plan(
        rank=rank,
        mode=candidate.mode,
        gpus=candidate.gpus_by_type,
        gpus_total=candidate.gpus,
        gpus_idle=candidate.idle,
        cost_usd_per_hour=_rounded(candidate.cost),
        usd_per_million_output_tokens=_rounded(candidate.usd_per_million_tokens),
        predicted=predicted,
        simulated=verdict.simulated if verdict else None,
        notes=[*(verdict.notes if verdict else ()), *([UNMEASURED] if candidate.mode == "af" else [])],
        pools=[_pool(pool) for pool in candidate.pools],
        certificate=certificate,
        basis=basis,
        calibrated_by={r.accelerator.id: r.efficiency.calibrated_by for r in rests_on},
        band={k: (significant(v * spans[k][0]), significant(v * spans[k][1])) for k, v in shown.items()},
    )


def parts_of(replica: Replica) -> tuple[Replica, ...]:
    """The replicas whose kernels a prediction rests on: its stages on unlike GPUs, or itself."""
    return tuple(stage.replica for stage in replica.stages) or (replica,)


def _pool(pool: Share) -> Pool:
    replica, held = pool.replica, pool.memory
    return Pool(
        role=pool.role,
        gpu=replica.hardware,
        stages=[PoolStage(gpu=s.gpu, tp=s.tp, first=s.first, end=s.end) for s in replica.stages],
        replicas=pool.replicas,
        layout=PoolLayout(**pool.layout._asdict()),
        weights=replica.weights,
        kv=replica.kv,
        max_batch=int(pool.slots),
        running_batch=significant(pool.batch),
        engine=replica.engine.id,
        micro_batches=pool.micro_batches,
        instances=pool.instances,
        speculation=pool_speculation(replica.speculation),
        tuning=pool_tuning(replica, pool.layout, pool.role),
        memory=PoolMemory(
            weights_gib=significant(held.weights / GIB),
            kv_gib=significant(held.request * pool.batch / GIB),
            activations_gib=significant(held.activations / GIB),
            capacity_gib=significant((held.capacity or replica.accelerator.memory) / GIB),
        ),
    )


def pool_tuning(replica: Replica, layout: Layout, role: str) -> Tuning | None:
    """What departs from a plain engine: of experts only where there are any, of their messages only where there are
    any to hide and iterations in which that is possible, of moving caches only between pools."""
    idle: list[str] = []
    if not replica.has_experts:
        idle += ["redundant_experts", "expert_imbalance"]
    in_graphs_only = role == "decode" and not replica.engine.exchange_in_graph
    if not replica.has_experts or not layout.sends_to_experts or in_graphs_only:
        idle += ["two_batch_overlap"]
    if role == "aggregated":
        idle += ["kv_transfer", "kv_compression"]
    tuning = replica.engine.tuning.model_copy(update=dict.fromkeys(idle))
    return None if tuning == Tuning() else tuning


def pool_speculation(how: Speculation | None) -> PoolSpeculation | None:
    """Write down how a replica drafts."""
    if how is None:
        return None
    known = how.acceptance
    return PoolSpeculation(
        method=how.method, tokens=how.tokens, acceptance=list(known.rates),
        acceptance_band=None if known.low is None or known.high is None else (known.low, known.high),
        acceptance_source=known.source, tokens_per_step=significant(how.tokens_per_step), draft=how.name,
    )  # fmt: skip


def _widened(spans: Mapping[str, tuple[float, float]], how: Speculation | None) -> dict[str, tuple[float, float]]:
    """A band with what is unknown of the acceptance in it: output follows the tokens of a step, TPOT their inverse."""
    if how is None:
        return dict(spans)
    low, high = how.acceptance.span(how.tokens)
    found = dict(spans)
    found["output_tok_s"] = (spans["output_tok_s"][0] * low, spans["output_tok_s"][1] * high)
    found["tpot_ms"] = (spans["tpot_ms"][0] / high, spans["tpot_ms"][1] / low)
    return found


def latency_ms(seconds: Mapping[str, float]) -> Latency:
    """Milliseconds by statistic from seconds."""
    return Latency(**{name: significant(value * 1e3) for name, value in seconds.items()})


def _performance(candidate: Candidate) -> Performance:
    m = candidate.per_replica

    return Performance(
        output_tok_s=significant(candidate.output_rate),
        output_tok_s_per_gpu=significant(candidate.output_rate / candidate.gpus),
        request_rate=significant(candidate.rate),
        ttft_ms=latency_ms(m.ttft),
        tpot_ms=latency_ms(m.tpot),
        e2e_ms=latency_ms(m.e2e),
    )


def _certificate(candidate: Candidate, outcome: Outcome, percentile: str) -> Certificate:
    """The best value is its own bound where every layout was evaluated; later ranks carry their distance to it."""
    best = objective_value(outcome.ranked[0], outcome.objective, percentile)
    value = objective_value(candidate, outcome.objective, percentile)
    gap = abs(value - best) / max(abs(best), 1e-12)
    return Certificate(
        objective=outcome.objective, value=significant(value), bound=significant(best), gap=significant(gap),
        status="feasible" if gap >= 1e-9 else "optimal" if outcome.exhaustive else "best found",
        solver="exhaustive enumeration" if outcome.exhaustive else "enumeration, splits pruned and matched by rate",
    )  # fmt: skip


def objective_value(c: Candidate, objective: str, percentile: str) -> float:
    """The number that the objective looks at, in the unit users read.

    Cost is US dollars per million output tokens; per hour in a closed loop, where the load is given and not the output.
    """
    cost = c.usd_per_million_tokens if c.concurrency is None else c.cost
    values: dict[str, float | None] = {
        "throughput": c.output_rate,
        "cost": cost if cost is not None else float(c.gpus),
        "latency": c.per_replica.e2e.get(percentile, c.per_replica.e2e["mean"]) * 1e3,
        "gpus": float(c.gpus),
        "energy": c.joules_per_token,
    }
    return float(values[objective] or 0.0)


def plan_file(
    job: Job,
    outcome: Outcome,
    ranked: Sequence[tuple[Candidate, Verdict | None]],
    *,
    elapsed: float,
    catalog_sha256: str,
    model_sha256: str,
    warnings: Sequence[str] = (),
    argv: Sequence[str],
) -> PlanFile:
    """Everything that a search found, ready to be saved.

    ``ranked`` is the final order; ``outcome`` keeps the order of the closed forms, to which certificates refer.
    """
    percentile = job.slo.percentile
    plans = [
        plan_of(candidate, rank, outcome, percentile, verdict)
        for rank, (candidate, verdict) in enumerate(ranked[: job.top], start=1)
    ]
    return PlanFile(
        format_version=FORMAT_VERSION,
        job=job.model_dump(mode="json"),
        plans=plans,
        search=SearchInfo(
            candidates=outcome.candidates,
            feasible=len(outcome.ranked),
            warnings=list(warnings),
            operating_points=outcome.points,
            elapsed_s=round(elapsed, 3),
            rejected=[RejectedRow(reason=r, count=n, nearest=near) for r, n, near in outcome.rejections.rows()],
            pareto=[_pareto_row(c, percentile) for c in outcome.frontier],
            modes=_mode_rows(outcome, percentile),
        ),
        provenance=Provenance(
            planner_version=__version__,
            catalog_sha256=catalog_sha256,
            model_sha256=model_sha256,
            seed=job.seed,
            argv=list(argv),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )


def _mode_rows(outcome: Outcome, percentile: str) -> list[ModeRow]:
    """The best candidate of each mode, best mode first."""
    best = {c.mode: c for c in reversed(outcome.ranked)}
    leading = sorted(best.items(), key=lambda item: outcome.ranked.index(item[1]))
    return [_mode_row(c, outcome.objective, percentile, alone=len(leading) == 1) for _, c in leading]


def _mode_row(c: Candidate, objective: str, percentile: str, *, alone: bool) -> ModeRow:
    parts: list[dict[str, float]] = [{}, {}, {}]
    if not alone:
        from planner.search.terms import terms_of

        terms = terms_of(c, percentile)
        parts = [{name: significant(x) for name, x in d.items()} for d in (terms.factors, terms.tpot, terms.ttft)]
    return ModeRow(
        mode=c.mode,
        plan=", ".join(str(pool) for pool in c.pools),
        value=significant(objective_value(c, objective, percentile)),
        terms=parts[0],
        tpot_ms=parts[1],
        ttft_ms=parts[2],
    )


def _pareto_row(c: Candidate, percentile: str) -> dict[str, Any]:
    tpot = c.per_replica.tpot.get(percentile, c.per_replica.tpot["mean"])
    return {
        "mode": c.mode,
        "gpu": " + ".join(c.gpus_by_type),
        "layout": " | ".join(str(pool.layout) for pool in c.pools),
        "weights": c.replica.weights,
        "output_tok_s_per_gpu": significant(c.output_rate / c.gpus),
        "tok_s_per_user": significant(1 / tpot) if tpot > 0 else None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else significant(value)
