"""The versioned Plan: the one thing that is saved, compared, simulated, explained and exported.

``PlanFile`` is what ``planner search -o json`` prints. Its fields are a contract with other programs: they
grow, they are
not renamed. Units are in the names, because values leave the process here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.catalog.bands import plan_band
from planner.errors import InputError
from planner.job.job import Job
from planner.job.speculating import Method
from planner.job.tuning import Tuning
from planner.search.ranking import Candidate, Outcome, Role, Share
from planner.serving.replica import Replica
from planner.serving.speculation import Speculation
from planner.units import GIB
from planner.version import __version__

FORMAT_VERSION = "1.0"
# A plan of a comparison names its fleet in a note that starts so.
FLEET_NOTE = "fleet: "


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Latency(_Model):
    """Milliseconds at the mean and at percentiles."""

    mean: float
    p50: float
    p90: float | None = None
    p95: float
    p99: float


class Performance(_Model):
    """What users of the deployment measure."""

    output_tok_s: float
    output_tok_s_per_gpu: float
    request_rate: float
    ttft_ms: Latency
    tpot_ms: Latency
    e2e_ms: Latency


class PoolLayout(_Model):
    """Split of one replica; see docs/architecture.md, contract 4."""

    tp: int = Field(ge=1)
    attention_dp: int = Field(ge=1)
    pp: int = Field(ge=1)
    ep: int = Field(ge=1)
    cp: int = Field(ge=1)


class PoolMemory(_Model):
    """GiB (2^30 bytes) on the fullest single GPU; ``kv_gib`` at the running batch of the plan."""

    weights_gib: float
    kv_gib: float
    activations_gib: float
    capacity_gib: float


class PoolSpeculation(_Model):
    """How a pool drafts tokens: ``acceptance`` by position, each given the one before, and the band it may be in (None:
    the user gave the rates); ``tokens_per_step`` expected of an iteration; ``draft`` a model of its own."""

    method: Method
    tokens: int = Field(ge=1)
    acceptance: list[float]
    acceptance_band: tuple[float, float] | None
    acceptance_source: str
    tokens_per_step: float
    draft: str | None = None


class PoolStage(_Model):
    """A pipeline stage on GPUs of its own type: layers ``first`` (included) to ``end`` (excluded), counted from 0."""

    gpu: str
    tp: int = Field(ge=1)
    first: int = Field(ge=0)
    end: int = Field(ge=1)


class Pool(_Model):
    """Equal replicas in one role on one GPU type (or, with ``stages``, pipelines over the types that ``gpu`` joins);
    ``request_rate`` where pools of one role share the load unequally;
    attention and FFN workers make up ``instances`` of a split model with so many ``micro_batches`` in flight each."""

    role: Role
    gpu: str
    replicas: int = Field(ge=1)
    layout: PoolLayout
    weights: str
    kv: str
    max_batch: int
    running_batch: float
    engine: str
    memory: PoolMemory
    request_rate: float | None = None
    micro_batches: int = 1
    instances: int = 1
    speculation: PoolSpeculation | None = None
    tuning: Tuning | None = None
    stages: list[PoolStage] = Field(default_factory=list)


class Certificate(_Model):
    """Proof of optimality within the space that was searched."""

    objective: str
    value: float
    bound: float
    gap: float
    status: Literal["optimal", "best found", "feasible"]
    solver: str


class Plan(_Model):
    """One deployable answer."""

    rank: int
    mode: Literal["aggregated", "pd", "af", "mixed"]
    gpus: dict[str, int]
    gpus_total: int
    gpus_idle: int
    cost_usd_per_hour: float | None
    usd_per_million_output_tokens: float | None
    predicted: Performance
    simulated: Performance | None
    notes: list[str]
    pools: list[Pool]
    certificate: Certificate
    basis: Literal["modelled", "calibrated", "measured"]
    band: dict[str, tuple[float, float]]


class RejectedRow(_Model):
    """Candidates that fell out for one reason, and the one that came nearest."""

    reason: str
    count: int
    nearest: str


class ModeRow(_Model):
    """The best plan of a mode by the closed forms: its objective, factors of its output (``terms``), and what its mean
    TPOT and its TTFT at the percentile of the limits are sums of; empty where only one mode was searched."""

    mode: str
    plan: str
    value: float
    terms: dict[str, float]
    tpot_ms: dict[str, float] = Field(default_factory=dict)
    ttft_ms: dict[str, float] = Field(default_factory=dict)


class SearchInfo(_Model):
    """How large the search was; ``feasible`` plans met the request, ``warnings`` say what to doubt.

    ``elapsed_s`` is a number on stdout and null in saved files, see ``PlanFile.reproducible``.
    """

    candidates: int
    feasible: int = 0
    warnings: list[str] = Field(default_factory=list)
    operating_points: int
    elapsed_s: float | None
    rejected: list[RejectedRow]
    pareto: list[dict[str, Any]]
    modes: list[ModeRow] = Field(default_factory=list)


class Provenance(_Model):
    """What the plan was made from: the same inputs and seed give the same saved bytes apart from ``created``.

    ``argv`` is the command without the options that say where its output goes.
    """

    planner_version: str
    catalog_sha256: str
    model_sha256: str
    seed: int
    argv: list[str]
    created: str


class PlanFile(_Model):
    """A saved search."""

    format_version: str
    job: dict[str, Any]
    plans: list[Plan]
    search: SearchInfo
    provenance: Provenance

    def reproducible(self) -> PlanFile:
        """Return what is saved: all but the time it took, so that the same input saves the same bytes."""
        return self.model_copy(update={"search": self.search.model_copy(update={"elapsed_s": None})})

    def plan(self, rank: int) -> Plan:
        """Return the plan of a rank, 1 for the best. Raises InputError."""
        for plan in self.plans:
            if plan.rank == rank:
                return plan
        raise InputError(f"--plan {rank}: the file holds {len(self.plans)} plans", hint=f"1 to {len(self.plans)}")


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
    fitted = all(r.efficiency.basis == "calibrated" for pool in candidate.pools for r in parts_of(pool.replica))
    known = fitted and candidate.mode != "af"
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
        tuning=pool_tuning(replica, split=pool.role != "aggregated"),
        memory=PoolMemory(
            weights_gib=significant(held.weights / GIB),
            kv_gib=significant(held.request * pool.batch / GIB),
            activations_gib=significant(held.activations / GIB),
            capacity_gib=significant((held.capacity or replica.accelerator.memory) / GIB),
        ),
    )


def pool_tuning(replica: Replica, *, split: bool) -> Tuning | None:
    """What departs from a plain engine: of experts only where there are any, of moving caches only between pools."""
    tuning = replica.engine.tuning
    if not replica.has_experts:
        tuning = tuning.model_copy(update=dict.fromkeys(("two_batch_overlap", "redundant_experts", "expert_imbalance")))
    if not split:
        tuning = tuning.model_copy(update=dict.fromkeys(("kv_transfer", "kv_compression")))
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


def read_plan_file(path: Path) -> PlanFile:
    """Read a saved search. Raises InputError when it is not one, or has an unknown major version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON", hint="a plan is what planner search --out plan.json writes") from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{path}: no format_version", hint="a plan is what planner search --out plan.json writes")
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise InputError(
            f"{path}: format {version[:20]} is not understood", hint=f"this build reads {FORMAT_VERSION[0]}.x"
        )
    try:
        return PlanFile.model_validate(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def to_json(file: BaseModel) -> str:
    """Serialise with a fixed key order and two spaces."""
    return json.dumps(file.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def sha256(text: str) -> str:
    """Hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def significant(value: float) -> float:
    """Six significant digits: more would pretend, and last bits differ between machines."""
    return float(f"{value:.6g}")


def _rounded(value: float | None) -> float | None:
    return None if value is None else significant(value)
