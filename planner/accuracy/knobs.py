"""Constants of engine profiles that were fitted to measurements, and profiles with other values of them.

A knob is one number of ``hardware_catalog/engines``: a field of `Engine` for some engines and one era of software. The
fit (benchmarks/fit_engines.py) turns knobs; what it found without each group of measurements ships as data, so that
``planner validate`` can predict that group honestly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.job.points import Point
from planner.serving.engine import Engine


@dataclass(frozen=True, slots=True)
class Knob:
    """A fitted constant.

    Attributes
    ----------
    field : of `Engine`; prior in its unit, sd of the logarithm around it.
    engines : those it belongs to, none for all. ``old``: True for static batches, which are 2023-24 software, False for
        serving, None for both.
    vendor : of the GPU, empty for any.
    """

    field: str
    prior: float
    sd: float
    engines: tuple[str, ...] = ()
    old: bool | None = None
    vendor: str = ""

    def touches(self, point: Point, engine: Engine) -> bool:
        """Whether the knob changes the engine of a point, as it runs on the GPUs of a vendor."""
        era = self.old is None or self.old == (point.mode == "static")
        place = not self.vendor or self.vendor == engine.vendor
        return era and place and (not self.engines or point.engine in self.engines)

    @property
    def name(self) -> str:
        """How tables and files call it."""
        era = {None: "", True: " old", False: " new"}[self.old]
        return f"{self.field} {'/'.join(self.engines or ('all',))}{era} {self.vendor}".rstrip()


def turned(engine: Engine, point: Point, knobs: Sequence[Knob], values: Sequence[float]) -> Engine:
    """The profile of a point with the knobs that touch it at ``values``; later knobs win."""
    changes = {knob.field: value for knob, value in zip(knobs, values, strict=True) if knob.touches(point, engine)}
    return replace(engine, **changes)  # type: ignore[arg-type]
