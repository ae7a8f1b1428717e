"""Whether the queue stays finite: an overloaded system has no latency distribution, only a growth rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from planner.simulation.simulator import Run

GROUPS: Final = 20
# Offered over served above which a growing queue counts as overload. The wait of a queue with load rho grows by
# 1 - 1/rho seconds per second, so 0.02 is a load of 1.02.
GROWTH: Final = 0.02


@dataclass(frozen=True, slots=True)
class Stability:
    """Verdict on a run.

    Attributes
    ----------
    stable : False if waits grew through the whole run.
    offered_per_s, served_per_s : rates of arrival, and of completion while requests still arrived.
    growth : seconds that the queueing delay grows per second of arrival time.
    short : all requests arrived before a mean one would have ended, so that no trend can show.
    """

    stable: bool
    offered_per_s: float
    served_per_s: float
    growth: float
    short: bool = False

    def __str__(self) -> str:
        """One line for the user."""
        if self.stable and math.isnan(self.offered_per_s):
            return "stable"
        if self.stable and self.short:
            return (
                f"{self.offered_per_s:.4g} requests/s arrive, all before a mean one has ended: too few to tell whether "
                "the queue stays finite"
            )
        if self.stable:
            return f"stable at {self.offered_per_s:.4g} requests/s"
        return (
            f"unstable: {self.offered_per_s:.4g} requests/s arrive, about {self.carried_per_s:.4g} can be served; "
            f"the wait grows by {self.growth:.2g} s every second"
        )

    @property
    def carried_per_s(self) -> float:
        """Requests/s that an overloaded system gets done: of two that arrive dt apart the second starts
        dt * (1 + growth) after the first. Completions of a short run would count the fill at its start as a failure."""
        return self.offered_per_s / (1.0 + self.growth)


def judge(run: Run) -> Stability:
    """Decide by the trend of the wait before service over 20 groups of arrivals.

    A run is unstable if that wait rises by at least GROWTH s/s over the last three quarters of the arrivals, a
    straight line explains most of the rise (r^2 > 0.6), and the last group waits longer than it is served.
    A closed loop limits itself and is always stable.
    """
    import numpy as np

    records = run.records
    arrival = np.asarray(records.arrival)
    offered = run.submitted / run.last_arrival if run.last_arrival else math.nan
    total = np.asarray(records.end_to_end)
    short = not run.closed_loop and len(total) > 0 and 0 < run.last_arrival < float(np.mean(total))
    if run.closed_loop or len(arrival) < 5 * GROUPS or not run.last_arrival:
        return Stability(True, offered, offered, 0.0, short)
    served = float(np.sum(arrival + total <= run.last_arrival)) / run.last_arrival
    order = np.argsort(arrival, kind="stable")
    order = order[len(order) // 4 :]
    queued = np.asarray(records.queued)
    growth, fit = _trend(_groups(arrival[order]), _groups(queued[order]))
    last = order[-len(order) // GROUPS :]
    service = float(np.mean(total[last] - queued[last]))
    stable = not (growth > GROWTH and fit > 0.6 and float(np.mean(queued[last])) > service)
    return Stability(stable, offered, served, growth, short)


def _groups(values: NDArray[np.float64]) -> NDArray[np.float64]:
    size = len(values) // GROUPS
    means: NDArray[np.float64] = values[: size * GROUPS].reshape(GROUPS, size).mean(axis=1)
    return means


def _trend(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope of the least-squares line and the share of the variance that it explains."""
    dx, dy = x - x.mean(), y - y.mean()
    xx, yy, xy = float(dx @ dx), float(dy @ dy), float(dx @ dy)
    if xx == 0 or yy == 0:
        return 0.0, 0.0
    return xy / xx, xy * xy / (xx * yy)
