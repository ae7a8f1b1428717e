"""Cross-type pipelines by column generation: several pipelines share a fleet of unlike devices.

A column is a pipeline: how many devices of each type it uses, and its rate. The master picks pipelines;
given its duals, the pricing problem is a bounded knapsack cover for every rate that a stage can have. When no
column prices out, the master's LP value bounds every set of pipelines.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.errors import InputError
from planner.job.pipelines import PipelineProblem
from planner.search.mixture.backends import SolverLimits, solve_linear
from planner.search.mixture.certificate import Certificate, relative_gap
from planner.search.mixture.linear import LinearModel
from planner.units import PerSecond, Seconds

_PRICES_OUT = 1e-9  # relative


@dataclass(frozen=True, slots=True)
class PipelineDevice:
    """``count`` devices; ``rates[l-1]`` is the rate (tokens/s or requests/s) of one that holds l layers.

    A device cannot hold more layers than ``rates`` has entries. Rates must not rise with more layers.
    """

    id: str
    count: int
    rates: tuple[PerSecond, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Devices by type, in the order of the devices given, layers that each holds at most, and the rate."""

    counts: tuple[int, ...]
    holds: tuple[int, ...]
    rate: PerSecond


@dataclass(frozen=True, slots=True)
class PipelineFleet:
    """Pipelines with how often each is built, their total rate, and the proof."""

    pipelines: tuple[tuple[Pipeline, int], ...]
    rate: PerSecond
    certificate: Certificate


def best_pipelines(devices: Sequence[PipelineDevice], layers: int, seconds: Seconds = 20.0) -> PipelineFleet:
    """Most total rate from the devices; every pipeline covers all layers and runs at its slowest device's rate.

    Stages are order-free here (equal layers, links no bottleneck); layer_partition.py has the ordered problem.
    """
    _check(devices, layers)
    started = time.monotonic()
    pricing = _Pricing(devices, layers)
    columns = pricing.first_columns()
    # A pipeline of rate r over all layers takes r * layers of what its devices carry: layers times rate.
    most = [d.count * max((n * r for n, r in enumerate(d.rates, start=1)), default=0.0) for d in devices]
    bound = math.fsum(most) / layers
    with contextlib.suppress(KeyboardInterrupt):  # then the best of the pipelines found so far
        while time.monotonic() - started < seconds * 0.5:
            value, duals = _relaxed_master(devices, columns)
            fresh, loose = pricing.columns(duals)
            # Any pipeline earns at most `loose` over its duals, and at most `devices` pipelines exist.
            bound = min(bound, value + loose * sum(d.count for d in devices))
            fresh = [c for c in fresh if c not in columns]
            if not fresh:
                break
            columns += fresh
    columns += [c for c in pricing.pairs(_relaxed_master(devices, columns)[1]) if c not in columns]
    return _integer_master(devices, columns, bound, started, seconds)


def pipelines_of(problem: PipelineProblem, seconds: Seconds = 20.0) -> PipelineFleet:
    """The same from a user's file."""
    devices = [PipelineDevice(d.name, d.count, d.rates) for d in problem.devices]
    return best_pipelines(devices, problem.layers, seconds)


class _Pricing:
    """For each possible rate: how many layers a device can hold at that rate, and the cheapest cover."""

    def __init__(self, devices: Sequence[PipelineDevice], layers: int) -> None:
        self.devices, self.layers = devices, layers
        self.rates = sorted({r for d in devices if d.count for r in d.rates if r > 0}, reverse=True)
        holds = [[sum(1 for r in d.rates if r >= rate) for d in devices] for rate in self.rates]
        self.single = [kind for kind, d in enumerate(devices) for _ in range(d.count)]
        self.holds: npt.NDArray[np.int64] = np.array(holds, dtype=np.int64).reshape(len(self.rates), len(devices))

    def columns(self, duals: Sequence[float]) -> tuple[list[Pipeline], float]:
        """Columns with rate > sum of duals, best first; and the largest such excess (0: none)."""
        price, taken = self._cover(np.maximum(np.asarray(duals, dtype=float), 0.0))
        excess = np.asarray(self.rates) - price[:, self.layers]
        order = np.argsort(-excess, kind="stable")
        scale = max(self.rates, default=0.0)
        found = []
        for row in order[:40]:
            if excess[row] <= _PRICES_OUT * scale:
                break
            column = self._read(int(row), taken)
            if column not in found:
                found.append(column)
        return found, max(0.0, float(excess[order[0]])) if len(order) else 0.0

    def first_columns(self) -> list[Pipeline]:
        """The fastest single pipeline of the whole fleet, then of what it leaves, and so on; homogeneous ones."""
        left = [d.count for d in self.devices]
        found: list[Pipeline] = []
        while (pipeline := self.fastest(left)) is not None:
            found.append(pipeline)
            left = [n - used for n, used in zip(left, pipeline.counts, strict=True)]
        for kind, device in enumerate(self.devices):
            alone = self.fastest([device.count if k == kind else 0 for k in range(len(self.devices))])
            if alone is not None and alone not in found:
                found.append(alone)
        return found

    def fastest(self, counts: Sequence[int]) -> Pipeline | None:
        """Fastest pipeline from ``counts`` devices, without the devices it can spare (those that hold least)."""
        room = self.holds @ np.asarray(counts, dtype=np.int64)
        rows = np.flatnonzero(room >= self.layers)
        if len(rows) == 0:
            return None
        row = int(rows[0])
        used, spare = list(counts), int(room[row]) - self.layers
        for kind in np.argsort(self.holds[row], kind="stable"):
            hold = int(self.holds[row][kind])
            drop = used[kind] if hold == 0 else min(used[kind], spare // hold)
            used[kind] -= drop
            spare -= drop * hold
        return Pipeline(tuple(used), tuple(int(h) for h in self.holds[row]), self.rates[row])

    def pairs(self, duals: Sequence[float]) -> list[Pipeline]:
        """For every rate the cheapest pipeline, and greedily the fastest ones from what it leaves."""
        price, taken = self._cover(np.maximum(np.asarray(duals, dtype=float), 0.0))
        found: dict[Pipeline, None] = {}
        for row in np.flatnonzero(np.isfinite(price[:, self.layers])):
            pipeline: Pipeline | None = self._read(int(row), taken)
            left = [d.count for d in self.devices]
            while pipeline is not None:
                found[pipeline] = None
                left = [n - used for n, used in zip(left, pipeline.counts, strict=True)]
                pipeline = self.fastest(left)
        return list(found)

    def _cover(self, duals: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Least price to cover i layers with the devices at hand, for all rates at once.

        0/1 knapsack cover over single devices: f(i) = min(f(i), dual + f(i - holds)).
        """
        rows = np.arange(len(self.rates))[:, None]
        layers = np.arange(self.layers + 1)[None, :]
        price = np.full((len(self.rates), self.layers + 1), np.inf)
        price[:, 0] = 0.0
        taken = np.zeros((len(self.single), len(self.rates), self.layers + 1), dtype=np.bool_)
        for item, kind in enumerate(self.single):
            hold = self.holds[:, kind][:, None]
            offer = np.where(hold > 0, duals[kind] + price[rows, np.maximum(0, layers - hold)], np.inf)
            taken[item] = offer < price
            price = np.where(taken[item], offer, price)
        return price, taken

    def _read(self, row: int, taken: npt.NDArray[np.bool_]) -> Pipeline:
        counts = [0] * len(self.devices)
        left = self.layers
        for item in range(len(self.single) - 1, -1, -1):
            if left > 0 and taken[item, row, left]:
                kind = self.single[item]
                counts[kind] += 1
                left = max(0, left - int(self.holds[row, kind]))
        return Pipeline(tuple(counts), tuple(int(h) for h in self.holds[row]), self.rates[row])


def _master(devices: Sequence[PipelineDevice], columns: Sequence[Pipeline], *, integer: bool) -> LinearModel:
    model = LinearModel()
    for c in columns:
        model.variable(f"pipeline {c.counts}", integer=integer)
    for kind, device in enumerate(devices):
        terms = [(i, float(c.counts[kind])) for i, c in enumerate(columns)]
        model.row("inventory", device.id, terms, upper=float(device.count))
    model.minimise({i: -c.rate for i, c in enumerate(columns)})
    return model


def _relaxed_master(devices: Sequence[PipelineDevice], columns: Sequence[Pipeline]) -> tuple[float, list[float]]:
    found = solve_linear(_master(devices, columns, integer=False), "glop", SolverLimits())
    if not columns or found.duals is None:
        return 0.0, [0.0] * len(devices)
    return -found.bound, [-d for d in found.duals]


def _integer_master(
    devices: Sequence[PipelineDevice],
    columns: Sequence[Pipeline],
    bound: float,
    started: float,
    seconds: Seconds,
) -> PipelineFleet:
    model = _master(devices, columns, integer=True)
    rest = max(0.1, seconds - (time.monotonic() - started))
    found = solve_linear(model, "highs", SolverLimits(seconds=rest))
    values = found.values or [0.0] * len(columns)
    chosen = [(c, round(v)) for c, v in zip(columns, values, strict=True) if round(v) > 0]
    for kind, device in enumerate(devices):
        assert sum(c.counts[kind] * n for c, n in chosen) <= device.count
    rate = math.fsum(c.rate * n for c, n in chosen)
    bound = max(bound, rate)
    gap = relative_gap(rate, bound)
    status = "optimal" if gap == 0.0 else "feasible"
    proof = Certificate(
        objective="throughput",
        value=rate,
        bound=bound,
        gap=None if math.isinf(gap) else gap,
        status=status if chosen else "infeasible",
        solver="column-generation+highs",
        seconds=time.monotonic() - started,
        time_limit=seconds,
        rows_checked=len(devices),
    )
    return PipelineFleet(tuple(chosen), rate, proof)


def _check(devices: Sequence[PipelineDevice], layers: int) -> None:
    if layers < 1:
        raise InputError("pipelines: a model has at least one layer")
    for device in devices:
        if device.count < 0 or any(not math.isfinite(r) or r < 0 for r in device.rates):
            raise InputError(f"pipelines: device {device.id!r} has a negative or infinite number")
        if any(b > a for a, b in zip(device.rates, device.rates[1:], strict=False)):
            raise InputError(f"pipelines: device {device.id!r} gets faster with more layers")
