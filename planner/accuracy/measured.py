"""Measured points: what was configured, what came out, and where it was published."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.catalog.files import catalog_root
from planner.job.points import Point, read_points
from planner.serving.estimated import Estimate
from planner.units import PerSecond, Seconds

QUANTITIES = ("tpot", "output_rate_per_gpu", "ttft", "e2e")
"""Members of `Estimate` that measurements are compared with."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One point and its measurement; seconds and tokens/s per GPU, None where nothing was published."""

    point: Point
    family: str
    tpot: Seconds | None
    ttft: Seconds | None
    e2e: Seconds | None
    output_rate_per_gpu: PerSecond | None

    @property
    def modern(self) -> bool:
        """Whether it is a closed loop on a serving engine of 2025-26, not a static batch of 2023-24."""
        return self.point.mode != "static"

    def pairs(self, estimate: Estimate) -> dict[str, tuple[float, float]]:
        """(measured, predicted) of every quantity that both sides have; end-to-end for static batches only."""
        found: dict[str, tuple[float, float]] = {}
        for name in QUANTITIES:
            ours, theirs = getattr(estimate, name), getattr(self, name)
            if ours and theirs and (name != "e2e" or not self.modern):
                found[name] = (theirs, ours)
        return found


def read_measured(path: Path) -> list[Measured]:
    """Read a points file with measured columns. Raises InputError."""
    return [measured_point(point) for point in read_points(path)]


def measured_point(point: Point) -> Measured:
    """Take the measured columns of a row. A throughput that was not published follows from the closed loop:
    concurrency*osl/(ttft + osl*tpot) tokens/s.
    """
    ttft, tpot, e2e = (_milliseconds(point, name) for name in ("ttft_ms", "tpot_ms", "e2e_latency_ms"))
    rate = _positive(point, "output_tok_s_per_gpu")
    if rate is None and ttft and tpot and point.mode != "static":
        rate = point.concurrency * point.osl / (ttft + point.osl * tpot) / gpus(point)
    return Measured(point, point.extra.get("family", ""), tpot, ttft, e2e, rate)


def gpus(point: Point) -> int:
    """GPUs of the whole deployment."""
    pools = (point.prefill, point.decode) if point.prefill and point.decode else (point.pool,)
    return sum(pool.gpus for pool in pools)


def shipped_points() -> list[Measured]:
    """Measured points that come with planner (validation/points.csv)."""
    return read_measured(catalog_root("validation") / "points.csv")


def sources() -> Mapping[str, str]:
    """Where the shipped points were published, by the name in their column ``source``."""
    return tomllib.loads((catalog_root("validation") / "sources.toml").read_text(encoding="utf-8"))


def groups(points: Sequence[Measured], by: Sequence[str]) -> list[tuple[str, ...]]:
    """Group of every point: its values of ``by``, which are members of `Point` or ``family``."""
    return [tuple(member(point, name) for name in by) for point in points]


def member(measured: Measured, name: str) -> str:
    """Value of a column that points are grouped by."""
    return measured.family if name == "family" else str(getattr(measured.point, name))


def _positive(point: Point, column: str) -> float | None:
    try:
        value = float(point.extra.get(column) or "nan")
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _milliseconds(point: Point, column: str) -> Seconds | None:
    value = _positive(point, column)
    return None if value is None else value / 1e3
