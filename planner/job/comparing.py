"""From the words of ``planner compare`` to a job, fleets, request classes and the rules of the mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, UnknownNameError
from planner.job.classes import WorkloadClass, classes_of_trace, read_classes, single_class
from planner.job.fleets import FleetSpec, parse_fleet_option
from planner.job.job import Job
from planner.job.parse import parse_job
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
    """Everything that ``planner compare`` is asked; ``cross_type``: also pipelines over two GPU types."""

    job: Job
    fleets: tuple[FleetSpec, ...]
    classes: tuple[WorkloadClass, ...]
    rules: MixtureRules
    cross_type: bool = False


def parse_comparison(
    *,
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
    **rest: Any,
) -> ComparisonRequest:
    """Read every option. Raises InputError naming the option."""
    fleets = _named_apart([parse_fleet_option(text) for text in fleet])
    recorded = _recorded(workload, trace, rate, isl or osl)
    if recorded:
        total = sum(c.rate for c in recorded)
        isl = str(max(1, round(sum(c.isl * c.rate for c in recorded) / total)))
        osl = str(max(1, round(sum(c.osl * c.rate for c in recorded) / total)))
        rate = f"{total:.12g}/s"
    job = parse_job(
        fleet=_counted(fleets), isl=isl, osl=osl, rate=rate, objective=objective, modes=modes, simulate_top=0, **rest
    )
    _check_modes_and_objective(job)
    if cross_type and "aggregated" not in job.modes:
        raise InputError("--cross-type-pipelines are aggregated replicas", hint="--modes aggregated,pd")
    classes = recorded or single_class(job.workload.isl, job.workload.osl, job.workload.rate)
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
    return ComparisonRequest(job, fleets, classes, rules, cross_type)


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


def _recorded(
    workload: Path | None, trace: Path | None, rate: str | None, lengths: str | None
) -> tuple[WorkloadClass, ...]:
    if workload is None and trace is None:
        return ()
    if workload is not None and trace is not None:
        raise InputError("give --workload or --trace, not both")
    if rate is not None or lengths is not None:
        raise InputError(
            "--workload and --trace bring their own lengths and rates", hint="leave out --isl, --osl, --rate"
        )
    return read_classes(workload) if workload is not None else classes_of_trace(trace or Path())


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
