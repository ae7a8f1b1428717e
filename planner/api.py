"""The public Python API: what ``import planner`` offers and what the command line calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.architecture.catalog import load_model
from planner.architecture.distill import distill
from planner.architecture.model import Model
from planner.architecture.precision import PRECISIONS
from planner.catalog.hardware import Accelerator
from planner.catalog.load import HardwareCatalog, load_hardware
from planner.cost.efficiency import load_efficiency
from planner.errors import NoPlanError, UnknownNameError
from planner.job.fleet import Fleet
from planner.job.job import Job
from planner.job.points import Point
from planner.job.traffic import Traffic
from planner.plan import PlanFile, Pool, plan_file, sha256
from planner.search.search import Progress, Supply
from planner.search.search import search as search_candidates
from planner.serving.engine import Engine, load_engine
from planner.serving.estimate import Estimate, estimate_points
from planner.serving.precision import kv_default
from planner.serving.profile import Profile
from planner.serving.replica import KV_BYTES, Replica
from planner.simulation.check import recheck
from planner.simulation.replay import Replayed, replay

_WEIGHT_NAMES = {"": "bf16", "fp16": "bf16", "mxfp4": "fp4"}
_KV_NAMES = {"fp16": "bf16"}
UNDATED_STATIC = "2024"
NO_PROFILE = Profile()


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

    def _supply(self, accelerator: Accelerator, count: int) -> Supply:
        price = self.hardware.reference_price(accelerator.id)
        efficiency = load_efficiency(accelerator.family, self.folders)
        return Supply(accelerator, efficiency, count, None if price is None else price.usd_per_gpu_hour)

    def replica(
        self, model: str, gpu: str, weights: str, kv: str, engine: str, *, version: str = "", date: str = ""
    ) -> Replica:
        """Build the replica of catalog names; an empty ``kv`` is what the engine does by default."""
        accelerator = self.hardware.accelerator(gpu)
        profile = load_engine(engine or "vllm", self.folders, version=version, date=date)
        weights = _WEIGHT_NAMES.get(weights, weights)
        known = self.model(model)
        kv = _KV_NAMES.get(kv, kv) or kv_default(known, weights, profile)
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
        return replace(supply, efficiency=replace(supply.efficiency, basis="calibrated"), engine=entry.apply(engine))


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
    engine = load_engine(job.engine, catalogs.folders)
    supplies = [catalogs.calibrated(supply, model, engine) for supply in catalogs.supplies(job.fleet)]
    outcome = search_candidates(model, engine, supplies, job, progress)
    if not outcome.ranked:
        raise no_plan(outcome.rejections.rows())
    ranked = recheck(outcome, job, progress) if job.simulate_top else [(c, None) for c in outcome.ranked]
    return plan_file(
        job, outcome, ranked, elapsed=time.perf_counter() - started, catalog_sha256=catalogs.hardware.sha256,
        model_sha256=sha256(distill(model)), argv=argv,
    )  # fmt: skip


def no_plan(rows: list[tuple[str, int, str]]) -> NoPlanError:
    """Turn a ledger into the one line that says why there is no plan, and the nearest miss."""
    if not rows:
        return NoPlanError("no plan: the fleet allows no layout", hint="add GPUs")
    total = sum(count for _, count, _ in rows)
    reason, count, nearest = next((row for row in rows if row[0].startswith(("misses", "fleet"))), rows[0])
    return NoPlanError(
        f"no plan meets the request: {count} of {total} rejected candidates fail by '{reason}'",
        hint=f"nearest miss: {nearest}",
    )


def estimate(points: Sequence[Point], *, catalogs: Catalogs | None = None) -> list[Estimate]:
    """Predict fixed configurations, one result per point in order; what cannot be predicted says why."""
    known = catalogs or Catalogs()
    return estimate_points(points, lambda p: replica_of_point(p, known))


def replica_of_point(point: Point, catalogs: Catalogs) -> Replica:
    """Build the replica of a fixed configuration.

    Static batches without date or version are taken as offline benchmarks of 2023-24 software, where that way of
    measuring comes from; everything else undated is current.
    """
    date = point.date
    if point.mode == "static" and not date and not point.engine_version:
        date = UNDATED_STATIC
    return catalogs.replica(
        point.model, point.gpu, point.weights, point.kv, point.engine, version=point.engine_version, date=date
    )


def simulate(
    found: PlanFile,
    rank: int = 1,
    traffic: Traffic | None = None,
    *,
    catalogs: Catalogs | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Replayed:
    """Replay a workload on the plan of a rank. Raises InputError."""
    plan, job = found.plan(rank), Job.model_validate(found.job)
    replica = replica_of_pool(job.model, plan.pools[0], catalogs or Catalogs())
    return replay(plan, job, replica, traffic or Traffic(seed=job.seed), progress)


def replica_of_pool(model: str, pool: Pool, catalogs: Catalogs) -> Replica:
    """Build the replica that a saved pool describes."""
    return catalogs.replica(model, pool.gpu, pool.weights, pool.kv, pool.engine)
