"""Points on a Ray cluster: the one that RAY_ADDRESS names, else one of this machine.

Workers need this version of planner and, under the same path, the folders of ``--catalog``; a profile travels with
the points.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from planner.api import Catalogs
from planner.errors import InputError
from planner.sweep.study import Point, Row, run_point

_RETRIES = 2
# Tasks handed over per core: enough that no core waits, few enough that asking which are done stays cheap.
_AHEAD = 4


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
        try:
            ray.init(log_to_driver=False, **place)
        except (ConnectionError, ValueError, RuntimeError) as problem:
            raise InputError(f"--on ray: no cluster at {address}: {str(problem)[:200]}") from None
    try:
        task = ray.remote(max_retries=_RETRIES)(run_point)
        waiting = iter(points)
        running: dict[Any, Point] = {}
        while True:
            ahead = _AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
            for point in islice(waiting, ahead - len(running)):
                running[task.remote(point, catalogs.folders, catalogs.assume_architecture, catalogs.profile)] = point
            if not running:
                return
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
