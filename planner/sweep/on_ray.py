"""Points on a Ray cluster: the one that RAY_ADDRESS names, else one of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from planner.api import Catalogs
from planner.errors import InputError
from planner.sweep.study import Point, Row, run_point

_RETRIES = 2


def ray_rows(points: Sequence[Point], workers: int, catalogs: Catalogs) -> Iterator[Row]:
    """Rows as they finish. A task whose worker dies runs again; after that it is reported as crashed."""
    try:
        import ray
    except ImportError:
        raise InputError("--on ray needs the package ray", hint="pip install 'llm-capacity-planner[ray]'") from None
    mine = not ray.is_initialized()
    if mine:
        address = os.environ.get("RAY_ADDRESS")
        place = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, **place)
    try:
        task = ray.remote(max_retries=_RETRIES)(run_point)
        running = {
            task.remote(point, catalogs.folders, catalogs.assume_architecture): point for point in points
        }  # fmt: skip
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                point = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as problem:
                    reason = f"{type(problem).__name__} on the cluster"
                    yield {"id": point.id, **point.options, "status": "crashed", "reason": reason}
    finally:
        if mine:
            ray.shutdown()
