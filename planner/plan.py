"""The versioned Plan: the one thing that is saved, compared, simulated, explained and exported.

``PlanFile`` is what ``planner search -o json`` prints. Its fields are a contract with other programs: they
grow, they are not renamed. Units are in the names, because values leave the process here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.errors import InputError
from planner.job.invalid import invalid
from planner.job.job import Job
from planner.job.speculating import Method
from planner.job.tuning import Tuning
from planner.search.ranking import Role

FORMAT_VERSION = "1.0"
# A plan of a comparison names its fleet in a note that starts so.
FLEET_NOTE = "fleet: "
_WRITTEN_BY = "a plan is what planner search --out plan.json writes"


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
    """One deployable answer.

    ``basis`` is ``calibrated`` where each GPU type and the mode were measured. ``calibrated_by`` tells of each GPU type
    whether its constants were fitted to the measurements of its family that ship (``family``) or to the user's own
    (``profile``: its factors are in ``provenance.calibrations``), null where to neither.
    """

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
    calibrated_by: dict[str, Literal["family", "profile"] | None] = Field(default_factory=dict)
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

    ``argv`` is the command without the options that say where its output goes; ``calibrations`` are those of the user's
    profile that the numbers rest on, so that a plan can be explained and simulated without the profile.
    """

    planner_version: str
    catalog_sha256: str
    model_sha256: str
    seed: int
    argv: list[str]
    created: str
    calibrations: list[dict[str, Any]] = Field(default_factory=list)


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

    def asked(self) -> Job:
        """The question that the plans answer. Raises InputError when it is none that this build understands."""
        try:
            return Job.model_validate(self.job)
        except ValidationError as problem:
            raise invalid(problem, self.job, "the job of the plan", hint=_WRITTEN_BY) from None

    def plan(self, rank: int) -> Plan:
        """Return the plan of a rank, 1 for the best. Raises InputError."""
        for plan in self.plans:
            if plan.rank == rank:
                return plan
        raise InputError(f"--plan {rank}: the file holds {len(self.plans)} plans", hint=f"1 to {len(self.plans)}")


def read_plan_file(path: Path) -> PlanFile:
    """Read a saved search. Raises InputError when it is not one, or has an unknown major version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON", hint=_WRITTEN_BY) from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{path}: no format_version", hint=_WRITTEN_BY)
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise InputError(
            f"{path}: format {version[:20]} is not understood", hint=f"this build reads {FORMAT_VERSION[0]}.x"
        )
    try:
        return PlanFile.model_validate(data)
    except ValidationError as problem:
        raise invalid(problem, data, str(path), hint=_WRITTEN_BY) from None


def to_json(file: BaseModel) -> str:
    """Serialise with a fixed key order and two spaces."""
    return json.dumps(file.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def sha256(text: str) -> str:
    """Hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def significant(value: float) -> float:
    """Six significant digits: more would pretend, and last bits differ between machines."""
    return float(f"{value:.6g}")
