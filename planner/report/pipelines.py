"""Pipelines over unlike devices as a table, JSON, YAML, CSV or Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planner.job.pipelines import PipelineProblem
from planner.report.emit import emit
from planner.report.formats import record_text, rows_text
from planner.search.pipeline_columns import PipelineFleet


def emit_pipelines(problem: PipelineProblem, found: PipelineFleet, output: str, out: Sequence[Path] | None) -> int:
    """Print and save pipelines; give the exit code: 1 when no pipeline can be built."""
    record = _record(problem, found)

    def render(form: str) -> str:
        if form in ("json", "yaml"):
            return record_text(record, form)
        return _text(record, form) if found.pipelines else ""

    emit(render, output, out)
    if found.pipelines:
        return 0
    sys.stderr.write(f"error: no pipeline: all devices together cannot hold {problem.layers} layers\n")
    return 1


def _record(problem: PipelineProblem, found: PipelineFleet) -> dict[str, Any]:
    names = [device.name for device in problem.devices]
    proof = found.certificate
    return {
        "status": proof.status,
        "rate": found.rate,
        "bound": proof.bound,
        "gap": proof.gap,
        "pipelines": [
            {
                "count": count,
                "rate": pipeline.rate,
                "devices": {n: used for n, used in zip(names, pipeline.counts, strict=True) if used},
                "most_layers": {
                    n: h for n, h, used in zip(names, pipeline.holds, pipeline.counts, strict=True) if used
                },
            }
            for pipeline, count in found.pipelines
        ],
        "solver": proof.solver,
        "elapsed_s": proof.seconds,
        "certificate": proof.as_dict(),
    }


def _text(record: dict[str, Any], form: str) -> str:
    rows = [
        {
            "pipelines": row["count"],
            "stages": ", ".join(
                f"{used} x {name} of at most {row['most_layers'][name]} layers" for name, used in row["devices"].items()
            ),
            "rate each": float(f"{row['rate']:.6g}"),
        }
        for row in record["pipelines"]
    ]
    if form == "csv":
        return rows_text(rows, form)
    gap = record["gap"]
    verdict = "optimal" if record["status"] == "optimal" else "no bound" if gap is None else f"gap {gap:.2%}"
    return (
        rows_text(rows, form).rstrip("\n")
        + f"\n\n{record['rate']:,.6g} in all, {verdict} (bound {record['bound']:,.6g}, {record['solver']}, "
        + f"{record['elapsed_s']:.2f} s).\n"
    )
