"""``planner estimate --from``: many fixed configurations, one prediction a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import InputError
from planner.report.progress import progress

if TYPE_CHECKING:
    from planner.api import Catalogs


def estimate_file(points: Path, model: str | None, catalogs: Catalogs, output: str, out: Sequence[Path] | None) -> None:
    """Predict every row of a CSV, which names the models; CSV again where no format is named. Raises InputError."""
    from planner.api import estimate
    from planner.job.points import read_points
    from planner.report.emit import check_formats, emit_predictions

    if model is not None:
        raise InputError(f"MODEL {model!r} and --from cannot go together", hint="the file names the models")
    form = "csv" if output == "table" else output
    check_formats(form, out)
    with progress() as show:
        show(f"reading {points}")
        rows = read_points(points)
        show(f"{len(rows):,} configurations")
        predictions = estimate(rows, catalogs=catalogs)
    emit_predictions(predictions, form, out)
