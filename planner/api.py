"""The public Python API: what ``import planner`` offers and what the command line calls.

Only what a search needs is imported at the top. The optimiser of mixtures, comparisons and replays are imported by the
functions that use them: reading their modules takes as long as a small search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.architecture.catalog import load_model
from planner.architecture.distill import distill
from planner.architecture.model import Model
from planner.architecture.precision import PRECISIONS
from planner.catalog.hardware import Accelerator
from planner.catalog.load import HardwareCatalog, load_hardware
from planner.cost.efficiency import load_efficiency
from planner.errors import InputError, NoPlanError, UnknownNameError
from planner.job.fleet import Fleet
from planner.job.job import Job
from planner.job.speculating import ASSUMED, Speculating
from planner.job.tuning import Tuning
from planner.plan import Plan, PlanFile, Pool, sha256, significant
from planner.planned import plan_file
from planner.search.ranking import Outcome
from planner.search.search import Progress, Supply
from planner.search.search import search as search_candidates
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine, load_engine
from planner.serving.precision import kv_default
from planner.serving.profile import Profile, parse_profile
from planner.serving.replica import KV_BYTES, Replica
from planner.serving.speculation import LENGTHS
from planner.simulation.check import PROBLEM, recheck
from planner.unequal import unequal_plan

if TYPE_CHECKING:
    from planner.comparison import Comparison, FleetOffer
    from planner.job.comparing import ComparisonRequest
    from planner.job.fleets import FleetSpec
    from planner.job.points import Point
    from planner.job.traffic import Traffic
    from planner.search.mixture import Offer
    from planner.serving.estimated import Estimate
    from planner.simulation.replay import Replayed

_WEIGHT_NAMES = {"": "bf16", "fp16": "bf16", "mxfp4": "fp4"}
_KV_NAMES = {"fp16": "bf16"}
UNDATED_STATIC = "2024"
NO_PROFILE = Profile()
CURRENT = "current"
# Splits that the shape of the model forbids are no candidates that failed.
SHAPE_REASONS = (
    "divide by tp", "divide by ep", "does not divide", "spread", "spread evenly", "than layers", "pipeline stages",
    "one pipeline stage",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Catalogs:
    """Where names are looked up: the built-in catalogs, the user's folders over them, and the user's calibration."""

    folders: tuple[Path, ...] = ()
    assume_architecture: str | None = None
    profile: Profile = NO_PROFILE

    @property
    def hardware(self) -> HardwareCatalog:
        """GPUs, nodes, fabrics and prices."""
        return load_hardware(self.folders)

    def of_plan(self, file: PlanFile) -> Catalogs:
        """The catalogs with the calibrations that a saved plan was made with, unless there is a profile.

        Raises InputError.
        """
        rows = file.provenance.calibrations
        if self.profile.calibrations or not rows:
            return self
        return replace(self, profile=parse_profile(rows, "the saved plan"))

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Where a user's model files lie: apart from those of hardware, which have another form."""
        return tuple(folder / "models" for folder in self.folders)

    def model(self, name: str) -> Model:
        """Return the model of a name, alias or path. Raises UnknownNameError, InputError."""
        return load_model(name, self.model_folders, self.assume_architecture)

    def supplies(self, fleet: Fleet) -> list[Supply]:
        """Resolve the GPU names of a fleet; two names of one GPU add up. Raises UnknownNameError."""
        hardware = self.hardware
        counts: dict[str, int] = {}
        for name, count in fleet.gpus.items():
            accelerator = hardware.accelerator(name)
            counts[accelerator.id] = counts.get(accelerator.id, 0) + count
        return [self._supply(hardware.accelerator(gpu), count) for gpu, count in counts.items()]

    def fleet_offer(self, fleet: FleetSpec) -> FleetOffer:
        """Resolve the names and prices of a fleet. Raises UnknownNameError."""
        from planner.comparison import FleetOffer, merged
        from planner.search.mixed import UNPRICED
        from planner.search.mixture import Offer

        supplies: dict[str, Supply] = {}
        offers: list[Offer] = []
        unpriced: set[str] = set()
        for spec in fleet.offers:
            accelerator = self.hardware.accelerator(spec.gpu)
            if spec.nic_gbps is not None:
                accelerator = replace(accelerator, network_bandwidth=spec.nic_gbps * 1e9 / 8)
            supply = self._supply(accelerator, spec.count or 0)
            price = spec.price if spec.price is not None else supply.price
            gpu = supply.accelerator.id
            known = supplies.get(gpu)
            supply = replace(supply, price=price)
            supplies[gpu] = supply if known is None else known.joined(supply)
            cost = UNPRICED if price is None else price
            unpriced |= {gpu} if price is None else set()
            offers.append(Offer(gpu, gpu, cost, spec.count, spec.node_gpus, spec.region, spec.spot))
        return FleetOffer(fleet.name, tuple(supplies.values()), merged(offers), frozenset(unpriced))

    def _supply(self, accelerator: Accelerator, count: int) -> Supply:
        price = self.hardware.reference_price(accelerator.id)
        efficiency = load_efficiency(accelerator.family, self.folders, accelerator.id)
        return Supply(accelerator, efficiency, count, None if price is None else price.usd_per_gpu_hour)

    def drafting(self, asked: Speculating | None) -> Drafting | None:
        """Resolve the names of a wish to speculate; None without one."""
        if asked is None:
            return None
        return Drafting(asked, None if asked.model is None else self.model(asked.model), self.folders)

    def replica(
        self,
        model: str,
        gpu: str,
        weights: str,
        kv: str,
        engine: str,
        *,
        version: str = "",
        date: str = "",
        tuning: Tuning | None = None,
    ) -> Replica:
        """Build the replica of catalog names; an empty ``kv`` is what the engine does by default."""
        accelerator = self.hardware.accelerator(gpu)
        profile = load_engine(engine or "vllm", self.folders, version=version, date=date).tuned(tuning or Tuning())
        profile = profile.on(accelerator.vendor)
        weights = _WEIGHT_NAMES.get(weights, weights)
        known = self.model(model)
        kv = _KV_NAMES.get(kv, kv) or kv_default(known, weights, profile, accelerator)
        if kv not in KV_BYTES:
            raise UnknownNameError("KV precision", kv, KV_BYTES)
        if weights not in PRECISIONS:
            raise UnknownNameError("weight precision", weights, PRECISIONS)
        supply = self.calibrated(self._supply(accelerator, 1), known, profile)
        return Replica(known, accelerator, supply.efficiency, supply.engine or profile, weights, kv)

    def calibrated(self, supply: Supply, model: Model, engine: Engine) -> Supply:
        """The supply as the user's profile has it for a model and engine; as it was without an entry."""
        entry = self.profile.find(model.id, supply.accelerator.id, engine.id)
        if entry is None:
            return supply
        return replace(
            supply,
            efficiency=replace(supply.efficiency, basis="calibrated", profiled=True),
            engine=entry.apply(engine.on(supply.accelerator.vendor)),
        )


def search(
    job: Job, *, catalogs: Catalogs | None = None, progress: Progress | None = None, argv: Sequence[str] = ()
) -> PlanFile:
    """Rank the plans of a job.

    Returns
    -------
    The saved form of the search; ``plans`` is never empty.

    Raises UnknownNameError and InputError for a request that cannot be understood, and NoPlanError, whose hint names
    the nearest miss, when no plan meets it.
    """
    catalogs = catalogs or Catalogs()
    started = time.perf_counter()
    model = catalogs.model(job.model)
    engine = load_engine(job.engine, catalogs.folders).tuned(job.tuning)
    supplies = [catalogs.calibrated(supply, model, engine) for supply in catalogs.supplies(job.fleet)]
    drafting = catalogs.drafting(job.speculate)
    outcome = search_candidates(model, engine, supplies, job, progress, drafting)
    mixture = unequal_plan(model, engine, supplies, job, outcome, drafting)
    if not outcome.ranked and mixture is None:
        raise no_plan(outcome.rejections.rows())
    require_rankable(outcome, job)
    ranked = recheck(outcome, job, progress) if job.simulate_top else [(c, None) for c in outcome.ranked]
    file = plan_file(
        job, outcome, ranked, elapsed=time.perf_counter() - started, catalog_sha256=catalogs.hardware.sha256,
        model_sha256=sha256(distill(model)), warnings=doubts(model, job, drafting), argv=argv,
    )  # fmt: skip
    file = _with_calibrations(file, catalogs.profile.of(model.id, engine.id))
    if mixture is None or (file.plans and not _beats(mixture, file.plans[0])):
        return file
    return with_first(file, mixture, job.top, time.perf_counter() - started)


def _with_calibrations(file: PlanFile, profile: Profile) -> PlanFile:
    """The file, which names the calibrations behind its numbers."""
    if not profile.calibrations:
        return file
    rows = [asdict(calibration) for calibration in profile.calibrations]
    return file.model_copy(update={"provenance": file.provenance.model_copy(update={"calibrations": rows})})


def _beats(mixture: Plan, best: Plan) -> bool:
    """Whether a mixture still leads after the simulation of both."""
    failed = any(note.startswith(PROBLEM) for note in mixture.notes)
    if failed != any(note.startswith(PROBLEM) for note in best.notes):
        return not failed
    if mixture.certificate.objective == "cost":
        return (mixture.cost_usd_per_hour or 0.0) < (best.cost_usd_per_hour or float("inf"))
    return mixture.predicted.output_tok_s > best.predicted.output_tok_s


def _behind(plan: Plan, best: Plan) -> Plan:
    """A plan one rank lower, its certificate at its distance to the best."""
    ours, theirs = plan.predicted.output_tok_s, best.predicted.output_tok_s
    if best.certificate.objective == "cost" and plan.cost_usd_per_hour and best.cost_usd_per_hour:
        ours, theirs = plan.cost_usd_per_hour, best.cost_usd_per_hour
    gap = significant(abs(ours / theirs - 1))
    proof = plan.certificate.model_copy(update={"gap": gap, "status": "feasible"})
    return plan.model_copy(update={"rank": plan.rank + 1, "certificate": proof})


def with_first(file: PlanFile, plan: Plan, top: int, elapsed: float) -> PlanFile:
    """The same file with a better plan in front; the certificates of the others refer to its value."""
    others = [_behind(p, plan) for p in file.plans[: top - 1]]
    info = file.search.model_copy(update={"elapsed_s": round(elapsed, 3), "feasible": file.search.feasible + 1})
    return file.model_copy(update={"plans": [plan, *others], "search": info})


def require_rankable(outcome: Outcome, job: Job) -> None:
    """Refuse an objective that was asked for but whose facts are missing. Raises InputError."""
    names = ", ".join(sorted({c.replica.accelerator.id for c in outcome.ranked}))
    if job.objective == "cost" and outcome.ranked and all(c.cost is None for c in outcome.ranked):
        raise InputError(f"--objective cost: no price is known of {names}", hint="add one with --catalog, see docs/")
    if job.objective == "energy" and outcome.ranked and all(c.replica.accelerator.power <= 0 for c in outcome.ranked):
        raise InputError(f"--objective energy: no power is known of {names}", hint="add tdp_w with --catalog")


def doubts(model: Model, job: Job, drafting: Drafting | None = None) -> list[str]:
    """What a user should doubt although a plan was found."""
    found, total = [], job.workload.isl + job.workload.osl
    if model.max_context is not None and total > model.max_context:
        found.append(f"{total:,.0f} tokens of a request exceed the context of {model.max_context:,} of {model.id}")
    if job.speculate is not None and not job.speculate.acceptance:
        found.append(ASSUMED)
    draft = None if drafting is None else drafting.model
    if draft is not None and draft.vocab != model.vocab:
        found.append(
            f"{draft.id} has {draft.vocab:,} tokens in its vocabulary, {model.id} {model.vocab:,}: engines check only "
            "drafts of the same tokenizer"
        )
    if not job.slo.limits and job.workload.concurrency is None and job.workload.rate is None:
        found.append("no latency limit is set, so plans run close to saturation; set --ttft and --tpot")
    return found


def no_plan(rows: list[tuple[str, int, str]]) -> NoPlanError:
    """Turn a ledger into the one line that says why there is no plan, and the nearest miss."""
    if not rows:
        return NoPlanError("no plan: the fleet or the budget allows no layout", hint="add GPUs or raise --budget")
    usable = [row for row in rows if not row[0].endswith(SHAPE_REASONS)] or rows
    total = sum(count for _, count, _ in usable)
    telling = (row for row in usable if "misses" in row[0] or row[0].startswith("fleet"))
    reason, count, nearest = next(telling, usable[0])
    return NoPlanError(
        f"no plan meets the request: {count} of {total} candidates fail by '{reason}'",
        hint=f"nearest miss: {nearest}",
    )


def estimate(points: Sequence[Point], *, catalogs: Catalogs | None = None) -> list[Estimate]:
    """Predict fixed configurations, one result per point in order; what cannot be predicted says why."""
    from planner.serving.estimate import estimate_points

    known = catalogs or Catalogs()
    found = estimate_points(points, lambda p: replica_of_point(p, known))
    for index, point in enumerate(points):
        if point.speculate is not None and point.speculate.tokens is None:
            found[index] = best_length(point, known)[1]
    return found


def best_length(point: Point, catalogs: Catalogs) -> tuple[int, Estimate]:
    """The draft length that gives a configuration the most output, 0 included, and what it predicts; the row that says
    why where the model cannot draft so at all."""
    from planner.serving.estimate import estimate_points

    assert point.speculate is not None
    lengths = (0, *LENGTHS)
    tried = [replace(point, speculate=point.speculate.model_copy(update={"tokens": n})) for n in lengths]
    rows = estimate_points(tried, lambda p: replica_of_point(p, catalogs))
    best = max(range(len(rows)), key=lambda i: (rows[i].output_rate_per_gpu or 0.0, -i))
    best = next((i for i, row in enumerate(rows) if row.status == "unsupported"), best)
    return lengths[best], rows[best]


def replica_of_point(point: Point, catalogs: Catalogs) -> Replica:
    """Build the replica of a row of a file of configurations.

    Static batches without date or version are taken as the published offline benchmarks of 2023-24 software, where that
    way of measuring comes from; everything else undated is current, and so is whatever says ``date = CURRENT``.
    """
    date = point.date
    if point.mode == "static" and not date and not point.engine_version:
        date = UNDATED_STATIC
    replica = catalogs.replica(
        point.model, point.gpu, point.weights, point.kv, point.engine, version=point.engine_version, date=date,
        tuning=point.tuning,
    )  # fmt: skip
    drafting = catalogs.drafting(point.speculate)
    if drafting is None or not drafting.asked.tokens:
        return replica
    return replace(replica, speculation=drafting.speculation(replica, drafting.asked.tokens))


def simulate(
    found: PlanFile,
    rank: int = 1,
    traffic: Traffic | None = None,
    *,
    catalogs: Catalogs | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Replayed:
    """Replay a workload on the plan of a rank, calibrated as the plan was where there is no profile.

    Raises InputError.
    """
    from planner.job.traffic import Traffic
    from planner.simulation.replay import replay

    plan, job = found.plan(rank), found.asked()
    known = (catalogs or Catalogs()).of_plan(found)
    replicas = [replica_of_pool(job.model, pool, known) for pool in plan.pools]
    return replay(plan, job, replicas, traffic or Traffic(seed=job.seed), progress)


def compare(
    asked: ComparisonRequest, *, catalogs: Catalogs | None = None, progress: Progress | None = None
) -> Comparison:
    """The same job, or several models at once, on several fleets, their union, and each GPU type without limit.

    Raises UnknownNameError, InputError; a fleet that cannot do the job is an entry with a reason, not an error.
    """
    from planner.comparison import Part, union_of
    from planner.comparison import compare as compare_fleets

    known = catalogs or Catalogs()
    fleets = [known.fleet_offer(fleet) for fleet in asked.fleets]
    parts = []
    for job in asked.jobs:
        model, engine = known.model(job.job.model), load_engine(job.job.engine, known.folders)
        supplies = tuple(known.calibrated(supply, model, engine) for supply in union_of(fleets).supplies)
        parts.append(Part(job, model, engine, supplies, known.drafting(job.job.speculate)))
    return compare_fleets(parts, fleets, asked, progress)


def comparison_plans(
    found: Comparison, asked: ComparisonRequest, *, catalogs: Catalogs | None = None, argv: Sequence[str] = ()
) -> PlanFile:
    """The plans of a comparison as a plan file, the winner's first. Raises InputError for several models."""
    from planner.comparison.saved import plans_of

    known = catalogs or Catalogs()
    model = known.model(asked.job.model)
    file = plans_of(found, asked, catalog_sha256=known.hardware.sha256, argv=argv, model_sha256=sha256(distill(model)))
    return _with_calibrations(file, known.profile.of(model.id, asked.job.engine))


def replica_of_pool(model: str, pool: Pool, catalogs: Catalogs) -> Replica:
    """Build the replica that a saved pool describes. Raises InputError for stages on unlike GPUs."""
    if pool.stages:
        raise InputError(
            f"a pipeline over {pool.gpu} can be neither replayed nor explained by operator yet",
            hint="planner compare shows its stages and what it carries",
        )
    replica = catalogs.replica(model, pool.gpu, pool.weights, pool.kv, pool.engine, tuning=pool.tuning)
    how = pool.speculation
    if how is None:
        return replica
    asked = Speculating(method=how.method, model=how.draft, acceptance=tuple(how.acceptance), tokens=how.tokens)
    drafting = catalogs.drafting(asked)
    assert drafting is not None
    return replace(replica, speculation=drafting.speculation(replica, how.tokens))
