"""Where ``--report`` goes; the page itself is made only when one is asked for."""

from __future__ import annotations

from pathlib import Path

from planner.api import Catalogs
from planner.errors import InputError
from planner.plan import PlanFile
from planner.report.emit import check_writable, write_whole


def check_report(path: Path | None) -> None:
    """Refuse a target that cannot be written, before any work is done."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report {path}: a report is an HTML file", hint="--report plan.html")
    check_writable(path, "--report")


def emit_report(found: PlanFile, path: Path | None, catalogs: Catalogs) -> None:
    """Write the report, if one was asked for."""
    if path is not None:
        from planner.report.html import html_report

        write_whole(path, html_report(found, catalogs), "--report")
