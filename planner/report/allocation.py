"""An exact mixture as a table, JSON, YAML, CSV or Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from planner.report.emit import emit
from planner.report.formats import record_text, rows_text
from planner.search.allocate import AllocationResult


def emit_allocation(result: AllocationResult, output: str, out: Sequence[Path] | None) -> int:
    """Print and save a mixture; give the exit code: 1 when there is none, with the reasons on stderr."""
    record = result.as_dict()

    def render(form: str) -> str:
        return record_text(record, form) if form in ("json", "yaml") else _text(result, form)

    emit(render, output, out)
    if result.cost is not None:
        return 0
    stopped = f"none was found before the {result.certificate.stopped_by or 'time limit'}"
    reasons = "; ".join(result.reasons) or stopped
    sys.stderr.write(f"error: no mixture: {' '.join(reasons.split())}\n")
    return 1


def _text(result: AllocationResult, form: str) -> str:
    if result.cost is None:
        return ""
    rows = [
        {
            "offer": name,
            "count": count,
            "serves": ", ".join(
                f"{klass} {shares[name]:.4g}/s" for klass, shares in result.assignment.items() if shares.get(name)
            ),
            "alone": _alone(result, name),
        }
        for name, count in result.counts.items()
    ]
    if form == "csv":
        return rows_text(rows, form)
    proof = result.certificate
    near = "no bound" if proof.gap is None else f"within {proof.gap:.2%} of the best possible"
    verdict = "optimal" if result.status == "optimal" else near
    return (
        rows_text(rows, form).rstrip("\n")
        + f"\n\n{result.cost:,.4g} $/h, {verdict} (bound {proof.bound or 0:,.4g} $/h, {proof.solver}, "
        + f"{result.elapsed:.2f} s).\n"
    )


def _alone(result: AllocationResult, name: str) -> str:
    single = result.single_type.get(name)
    return "cannot" if single is None else f"{single.count} for {single.cost:,.4g} $/h"
