"""Run the points of a study that are not done yet, wherever, and write the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from planner.api import Catalogs
from planner.errors import UnknownNameError
from planner.sweep.journal import append, check_table, open_journal, write_table
from planner.sweep.study import Point, Row, columns, read_study, run_point
from planner.version import __version__

PLACES = ("local", "ray")
Show = Callable[[int, int], None]  # points done, points in all


def run_study(
    study: Path, table: Path, on: str, workers: int | None, fresh: bool, catalogs: Catalogs, show: Show
) -> str:
    """Run what is left of a study and write its table; say in one line what was done. Raises InputError."""
    if on not in PLACES:
        raise UnknownNameError("place to run", on, PLACES)
    check_table(table)
    all_points = read_study(study)
    basis = f"{__version__} {catalogs.hardware.sha256} {catalogs.assume_architecture}"
    if catalogs.profile.calibrations:
        basis += f" {catalogs.profile.text()}"
    journal, rows = open_journal(table, basis, fresh)
    left = [point for point in all_points if point.id not in rows]
    kept = len(all_points) - len(left)
    show(kept, len(all_points))
    with journal:
        for number, row in enumerate(_rows(left, on, workers or _cores(), catalogs), start=1):
            append(journal, row)
            rows[row["id"]] = row
            show(kept + number, len(all_points))
    ordered = [rows[point.id] for point in all_points]
    write_table(table, columns(all_points), ordered)
    good = sum(row["status"] == "ok" for row in ordered)
    again = f", {kept:,} of them from an earlier run" if kept else ""
    wrong = [row["reason"] for row in ordered if row["status"] not in ("ok", "no plan")]
    refused = f"; {len(wrong):,} refused or failed, the first: {wrong[0]}" if wrong else ""
    return f"{len(ordered):,} points{again}; {good:,} with a plan{refused}"


def _rows(points: Sequence[Point], on: str, workers: int, catalogs: Catalogs) -> Iterator[Row]:
    if not points:
        return iter(())
    if on == "ray":
        from planner.sweep.on_ray import ray_rows

        return ray_rows(points, workers, catalogs)
    return local_rows(points, workers, catalogs)


def local_rows(points: Sequence[Point], workers: int, catalogs: Catalogs) -> Iterator[Row]:
    """Rows as they finish, in processes of this machine.

    When a process dies, the points without a row run again, then one by one: one that kills its process alone is
    reported as crashed, and no finished row is lost.
    """
    left = {point.id: point for point in points}
    for crowd in (min(workers, len(points)), 1):
        for row in _until_broken(list(left.values()), crowd, catalogs):
            del left[row["id"]]
            yield row
        if not left:
            return
    for point in left.values():
        rows = list(_until_broken([point], 1, catalogs))
        yield rows[0] if rows else {"id": point.id, **point.options, "status": "crashed", "reason": "its process died"}


def _until_broken(points: Sequence[Point], workers: int, catalogs: Catalogs) -> Iterator[Row]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        place = (catalogs.folders, catalogs.assume_architecture, catalogs.profile)
        jobs = [pool.submit(run_point, point, *place) for point in points]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
