"""``planner allocate``: one file of capacities, which asks for replicas or for pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def allocate_file(profile: Path, solver: str, time_limit: str, output: str, out: Sequence[Path] | None) -> int:
    """Solve what the file asks for and print it; the exit code is 1 where nothing meets it. Raises InputError."""
    from planner.job.allocation import read_allocation
    from planner.job.pipelines import PipelineProblem
    from planner.search.mixture import SolveOptions
    from planner.units import parse_duration

    problem, seconds = read_allocation(profile), parse_duration(time_limit, "--time-limit")
    options = SolveOptions(solver=solver, seconds=seconds)
    if isinstance(problem, PipelineProblem):
        from planner.report.pipelines import emit_pipelines
        from planner.search.pipeline_columns import pipelines_of

        return emit_pipelines(problem, pipelines_of(problem, seconds), output, out)
    from planner.report.allocation import emit_allocation
    from planner.search.allocate import allocate

    return emit_allocation(allocate(problem, options), output, out)
