"""The plans of a comparison as a plan file, so that the winner can be simulated, exported and compared with others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from planner.comparison.compare import Comparison
from planner.errors import InputError
from planner.job.comparing import ComparisonRequest
from planner.plan import FLEET_NOTE, FORMAT_VERSION, PlanFile, Provenance, RejectedRow, SearchInfo
from planner.version import __version__

BY_CLASS = (
    "pools serve different request classes; a replay sends every request to every pool, at the mean lengths "
    "unless a trace is given"
)

LINKS = "planned with the nic_gbps of the fleet files; a replay takes the network of the catalog"


def check_can_be_saved(asked: ComparisonRequest) -> None:
    """Raise InputError for several models: a plan file has one job."""
    if len(asked.jobs) > 1:
        raise InputError(
            "--save-plan: a plan file holds the plan of one model, not of --jobs",
            hint="-o json has a plan for each job",
        )


def plans_of(
    found: Comparison,
    asked: ComparisonRequest,
    *,
    catalog_sha256: str,
    model_sha256: str,
    argv: Sequence[str],
) -> PlanFile:
    """The winner's plan in front, then those of the other fleets in the order of the table; each names its fleet.

    Raises InputError for several models.
    """
    check_can_be_saved(asked)
    warnings = list(found.warnings)
    if len(asked.classes) > 1:
        warnings.append(BY_CLASS)
    if any(offer.nic_gbps is not None for fleet in asked.fleets for offer in fleet.offers):
        warnings.append(LINKS)
    able = sorted((e for e in found.entries if e.plan is not None), key=lambda e: e.fleet != found.winner)
    plans = []
    for rank, entry in enumerate(able, start=1):
        assert entry.plan is not None
        notes = [f"{FLEET_NOTE}{entry.fleet}", *entry.plan.notes]
        plans.append(entry.plan.model_copy(update={"rank": rank, "notes": notes}))
    return PlanFile(
        format_version=FORMAT_VERSION,
        job=asked.job.model_dump(mode="json"),
        plans=plans,
        search=SearchInfo(
            candidates=found.units + sum(count for _, count, _ in found.rejected),
            feasible=found.units,
            warnings=warnings,
            operating_points=0,
            elapsed_s=None,
            rejected=[RejectedRow(reason=r, count=n, nearest=near) for r, n, near in found.rejected],
            pareto=[],
        ),
        provenance=Provenance(
            planner_version=__version__,
            catalog_sha256=catalog_sha256,
            model_sha256=model_sha256,
            seed=asked.job.seed,
            argv=list(argv),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
