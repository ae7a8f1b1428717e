"""Where results go: stdout in the asked format, and files by their suffix, written whole or not at all."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError, UnknownNameError
from planner.plan import PlanFile, to_json
from planner.report.formats import FORMATS, Row, record_text, rows_text, yaml_text
from planner.report.plans import plan_rows, plans_text
from planner.report.plot import pareto_text

if TYPE_CHECKING:
    from planner.serving.estimated import Estimate

_SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".md": "md", ".txt": "table"}
Render = Callable[[str], str]


def check_formats(output: str, out: Sequence[Path] | None, allowed: Sequence[str] = FORMATS) -> None:
    """Refuse an unknown format or a target that cannot be written, before any work is done."""
    if output not in allowed:
        raise UnknownNameError("output format", output, allowed)
    for path in out or ():
        form = _form(path)
        if form not in allowed:
            raise InputError(
                f"--out {path}: cannot write {path.suffix or 'a file without suffix'}",
                hint=f"one of {', '.join(allowed)}",
            )
        check_writable(path)


def check_writable(path: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be written, before any work is done. Raises InputError naming ``option``."""
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: no such folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} {path}: cannot be written there")


def emit(render: Render, output: str, out: Sequence[Path] | None, saved: Render | None = None) -> None:
    """Print in ``output`` and write every file of ``out`` in the format of its suffix, by ``saved`` if that differs."""
    for path in out or ():
        write_whole(path, (saved or render)(_form(path)))
    sys.stdout.write(render(output))


def write_whole(path: Path, text: str, option: str = "--out") -> None:
    """Write a file so that a reader sees the old or the new one, never a part. Raises InputError naming ``option``."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as problem:
        raise InputError(f"{option} {path}: cannot be written: {problem.strerror}") from None


def emit_plans(found: PlanFile, output: str, out: Sequence[Path] | None) -> None:
    """Print and save a search; files leave out how long it took, so that they can be compared."""
    kept = found.reproducible()
    emit(lambda form: _plans(found, form), output, out, saved=lambda form: _plans(kept, form))
    for warning in found.search.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    if output == "table":
        sys.stdout.write(pareto_text(found) if sys.stdout.isatty() else "")
        where = (
            f"; saved to {', '.join(str(path) for path in out)}"
            if out
            else "; add --out plan.json to save, then: planner explain plan.json"
        )
        points, elapsed = found.search.operating_points, found.search.elapsed_s or 0.0
        sys.stderr.write(
            f"{found.search.candidates:,} candidates, {points:,} operating points in {elapsed:.2f} s{where}\n"
        )


def _plans(found: PlanFile, form: str) -> str:
    match form:
        case "json":
            return to_json(found)
        case "yaml":
            return yaml_text(found.model_dump(mode="json"))
        case "table":
            return plans_text(found)
        case _:
            return rows_text(plan_rows(found), form)


def emit_predictions(predictions: Sequence[Estimate], output: str, out: Sequence[Path] | None) -> None:
    """Print or save predictions of many points; files get them, else stdout does."""
    from planner.job.points import write_predictions

    rows = [prediction.row() for prediction in predictions]

    def render(form: str) -> str:
        if form == "csv":
            stream = io.StringIO()
            write_predictions(rows, stream)
            return stream.getvalue()
        return rows_text(rows, form)

    for path in out or ():
        write_whole(path, render(_form(path)))
    if not out:
        sys.stdout.write(render(output))
    good = sum(p.status == "ok" for p in predictions)
    sys.stderr.write(f"{good:,} of {len(predictions):,} configurations predicted\n")


def emit_rows(rows: Sequence[Row], output: str) -> None:
    """Print a listing."""
    check_formats(output, None)
    sys.stdout.write(rows_text(rows, output))


def emit_record(record: dict[str, Any], output: str) -> None:
    """Print one entry."""
    check_formats(output, None)
    sys.stdout.write(record_text(record, output))


def _form(path: Path) -> str:
    return _SUFFIXES.get(path.suffix.lower(), "")
