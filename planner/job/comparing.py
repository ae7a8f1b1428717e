"""From the words of ``planner compare`` to a job, fleets, request classes and the rules of the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, UnknownNameError
from planner.job.classes import WorkloadClass
from planner.job.fleets import FleetSpec, parse_fleet_option
from planner.job.job import Job
from planner.job.model_jobs import ONLY, ModelJob, model_job, read_jobs
from planner.job.slo import Slo
from planner.units import parse_duration, parse_fraction, parse_money, parse_power

# What the fleets are called together; a fleet of that name gets another.
UNION = "union"


@dataclass(frozen=True, slots=True)
class MixtureRules:
    """Rows of the exact mixture beside demand and inventory, and who solves it.

    Attributes
    ----------
    headroom : highest utilisation to plan with, (0, 1]. ``spare`` replicas of any kind may fail.
    budget : US dollars per hour. ``power``: watts. ``spot_share`` : most of the GPUs that may be spot.
    region_floor : least share of the requests that a region serves, by region.
    """

    headroom: float = 1.0
    spare: int = 0
    budget: float | None = None
    power: float | None = None
    region_floor: tuple[tuple[str, float], ...] = ()
    spot_share: float | None = None
    solver: str = "auto"
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """Everything that ``planner compare`` is asked: a job, or several models that share the fleets.

    ``cross_type``: also pipelines over two GPU types.
    """

    jobs: tuple[ModelJob, ...]
    fleets: tuple[FleetSpec, ...]
    rules: MixtureRules
    cross_type: bool = False

    @property
    def job(self) -> Job:
        """The only job, or the first: load, objective, modes and percentile are of one kind in all."""
        return self.jobs[0].job

    @property
    def classes(self) -> tuple[WorkloadClass, ...]:
        """Request classes of all jobs."""
        return tuple(c for asked in self.jobs for c in asked.classes)

    def slo(self, name: str) -> Slo:
        """Limits of a job."""
        return next(asked.job.slo for asked in self.jobs if asked.name == name)


def parse_comparison(
    *,
    model: str | None,
    fleet: Sequence[str],
    workload: Path | None,
    trace: Path | None,
    rate: str | None,
    isl: str | None,
    osl: str | None,
    headroom: str,
    spare: int,
    budget: str | None,
    spot_share: str | None,
    solver: str,
    time_limit: str,
    power: str | None = None,
    region_floor: Sequence[str] = (),
    objective: str | None = None,
    modes: str = "aggregated",
    cross_type: bool = False,
    jobs: Path | None = None,
    **rest: Any,
) -> ComparisonRequest:
    """Read every option. Raises InputError naming the option."""
    fleets = _named_apart([parse_fleet_option(text) for text in fleet])
    load = {"isl": isl, "osl": osl, "rate": rate, "workload": workload, "trace": trace}
    words = {**rest, "fleet": _counted(fleets), "objective": objective, "modes": modes}
    if jobs is None:
        if model is None:
            raise InputError("MODEL is missing", hint="or --jobs FILE for several models that share the fleets")
        asked: tuple[ModelJob, ...] = (model_job(ONLY, load, {**words, "model": model}),)
    else:
        _check_alone(model, load)
        asked = read_jobs(jobs, words)
    job = asked[0].job
    _check_modes_and_objective(job)
    if cross_type and "aggregated" not in job.modes:
        raise InputError("--cross-type-pipelines are aggregated replicas", hint="--modes aggregated,pd")
    share = parse_fraction(headroom, "--headroom")
    if share <= 0:
        raise InputError("--headroom must be above zero", hint="80% plans with a fifth of the capacity to spare")
    rules = MixtureRules(
        headroom=share,
        spare=spare,
        budget=None if budget is None else parse_money(budget, "--budget"),
        power=None if power is None else parse_power(power, "--power"),
        region_floor=_floors(region_floor, fleets),
        spot_share=None if spot_share is None else parse_fraction(spot_share, "--spot-share"),
        solver=solver,
        seconds=parse_duration(time_limit, "--time-limit"),
    )
    return ComparisonRequest(asked, fleets, rules, cross_type)


def _check_alone(model: str | None, load: Mapping[str, object]) -> None:
    """What a file of jobs says cannot be said again."""
    if model is not None:
        raise InputError(f"MODEL {model!r} and --jobs cannot go together", hint="the file names the models")
    given = [name for name, value in load.items() if value is not None]
    if given:
        raise InputError(f"--{given[0]} and --jobs cannot go together", hint="each job of the file has its own load")


def _check_modes_and_objective(job: Job) -> None:
    """Refuse what cannot be compared."""
    if "af" in job.modes:
        raise InputError("--modes: compare builds aggregated replicas and pd pods, not af", hint="use planner search")
    rated, objective = job.workload.rate is not None, job.objective
    if rated and objective not in (None, "cost", "gpus", "energy"):
        raise InputError(f"--objective {objective}: a rate is carried at the least cost, gpus or energy")
    if not rated and objective not in (None, "throughput"):
        raise InputError(f"--objective {objective} needs --rate", hint="without a rate each fleet gives what it can")


def _floors(texts: Sequence[str], fleets: Sequence[FleetSpec]) -> tuple[tuple[str, float], ...]:
    """Read ``REGION=SHARE`` for regions that some fleet has."""
    regions = {offer.region for fleet in fleets for offer in fleet.offers if offer.region}
    found: dict[str, float] = {}
    for text in texts:
        region, _, share = text.rpartition("=")
        if not region:
            raise InputError(f"--region-floor: {text!r} is not REGION=SHARE", hint="for example eu=30%")
        if region not in regions:
            raise UnknownNameError("region", region, regions)
        found[region] = parse_fraction(share, f"--region-floor {region}")
    return tuple(found.items())


def _counted(fleets: Sequence[FleetSpec]) -> str:
    """The fleets as one ``GPU:COUNT`` list, which a job needs; unlimited offers count as one GPU."""
    return ",".join(f"{offer.gpu}:{offer.count or 1}" for fleet in fleets for offer in fleet.offers)


def _named_apart(fleets: list[FleetSpec]) -> tuple[FleetSpec, ...]:
    if not fleets:
        raise InputError("--fleet is missing", hint="for example --fleet h100-sxm:8 --fleet l40s:32")
    taken = {UNION}
    named = []
    for fleet in fleets:
        name, again = fleet.name, 2
        while name in taken:
            name, again = f"{fleet.name} ({again})", again + 1
        taken.add(name)
        named.append(FleetSpec(name, fleet.offers))
    return tuple(named)
