"""Predict measured points with engine profiles other than those of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.api import Catalogs, replica_of_point
from planner.errors import PlannerError
from planner.job.points import Point
from planner.serving.engine import Engine
from planner.serving.estimate import estimate_points
from planner.serving.estimated import Estimate
from planner.serving.replica import Replica

EngineOf = Callable[[Point, Engine], Engine]


def as_shipped(_: Point, engine: Engine) -> Engine:
    """The profile of the catalog."""
    return engine


class Predictor:
    """Predicts points again and again under changing engine profiles; replicas are built once."""

    def __init__(self, catalogs: Catalogs | None = None) -> None:
        self._catalogs = catalogs or Catalogs()
        self._replicas: dict[tuple[str, ...], Replica | PlannerError] = {}

    def __call__(self, points: Sequence[Point], engine_of: EngineOf = as_shipped) -> list[Estimate]:
        """One estimate per point, in order."""

        def replica(point: Point) -> Replica:
            base = self._base(point)
            return replace(base, engine=engine_of(point, base.engine))

        return estimate_points(points, replica)

    def names(self, point: Point) -> tuple[str, str]:
        """Catalog names of a point's model and GPU. Raises PlannerError for unknown ones."""
        replica = self._base(point)
        return replica.model.id, replica.accelerator.id

    def _base(self, point: Point) -> Replica:
        p = point
        key = (p.model, p.gpu, p.weights, p.kv, p.engine, p.engine_version, p.date, p.mode)
        if key not in self._replicas:
            try:
                self._replicas[key] = replica_of_point(point, self._catalogs)
            except PlannerError as problem:
                self._replicas[key] = problem
        found = self._replicas[key]
        if isinstance(found, PlannerError):
            raise found
        return found
