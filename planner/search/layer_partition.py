"""Exact split of a model's layers over a pipeline whose stages are different GPU types.

A stage is one device (or one tensor-parallel group) that holds consecutive layers. Its time per step is
sum of its layers' seconds + seconds to send activations to the next stage; the pipeline runs at the
speed of its slowest stage. Embedding and output head are layers with times and bytes of their own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from planner.errors import InputError
from planner.units import Bytes, Seconds

_ROUNDING = 1e-12  # relative: sums of seconds in another order


@dataclass(frozen=True, slots=True)
class StageType:
    """Devices of one kind that can each be one stage.

    Attributes
    ----------
    count : devices at hand.
    layer_seconds : seconds of each layer on such a device, first to last.
    layer_bytes : bytes of each layer that the device must hold; ``memory``: bytes it has.
    price : of one device, in any unit.
    """

    id: str
    count: int
    layer_seconds: tuple[Seconds, ...]
    layer_bytes: tuple[Bytes, ...]
    memory: Bytes
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers ``first`` (included) to ``end`` (excluded) on one device of ``type``."""

    type: str
    first: int
    end: int
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Partition:
    """A pipeline: its stages in order, seconds of the slowest, and the price of its devices."""

    stages: tuple[Stage, ...]
    bottleneck: Seconds
    price: float

    @property
    def counts(self) -> dict[str, int]:
        """Devices by type."""
        counts: dict[str, int] = {}
        for stage in self.stages:
            counts[stage.type] = counts.get(stage.type, 0) + 1
        return counts


def fastest_partition(
    types: Sequence[StageType], send_seconds: Mapping[tuple[str, str], Seconds] | None = None
) -> Partition | None:
    """Smallest bottleneck with the devices at hand, and the least price at that bottleneck; None if nothing fits.

    The optimum equals the time of some stage, so a binary search over all stage times is exact. Each probe is a
    dynamic program over (devices used by type, type of the last stage).
    """
    table = _Table(types, send_seconds or {})
    times = table.stage_times()
    low, high = 0, len(times) - 1
    if high < 0 or table.cheapest(times[high]) is None:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if table.cheapest(times[middle]) else (middle + 1, high)
    return table.cheapest(times[high])


def cheapest_partition(
    types: Sequence[StageType],
    bottleneck: Seconds,
    send_seconds: Mapping[tuple[str, str], Seconds] | None = None,
) -> Partition | None:
    """Least price of a pipeline whose slowest stage takes at most ``bottleneck`` seconds; None if there is none."""
    return _Table(types, send_seconds or {}).cheapest(bottleneck)


class _Table:
    """Prefix sums of layer times and bytes, and the dynamic program on them."""

    def __init__(self, types: Sequence[StageType], send: Mapping[tuple[str, str], Seconds]) -> None:
        if len({t.id for t in types}) != len(types):
            raise InputError("layer partition: a stage type is given twice")
        lengths = {len(t.layer_seconds) for t in types} | {len(t.layer_bytes) for t in types}
        if len(lengths) > 1 or lengths == {0}:
            raise InputError("layer partition: every stage type needs seconds and bytes for each of the same layers")
        for kind in types:
            if kind.count < 0 or min((*kind.layer_seconds, *kind.layer_bytes, kind.price)) < 0:
                raise InputError(f"layer partition: stage type {kind.id!r} has a negative number")
        self.types = [t for t in types if t.count > 0]
        self.layers = lengths.pop() if lengths else 0
        self.seconds = [[0.0, *accumulate(t.layer_seconds)] for t in self.types]
        self.bytes = [[0.0, *accumulate(t.layer_bytes)] for t in self.types]
        self.send = [[send.get((a.id, b.id), 0.0) for b in self.types] + [0.0] for a in self.types]

    def reach(self, a: int, first: int, budget: Seconds) -> int:
        """Largest end such that layers first..end-1 fit the memory and take at most ``budget`` seconds."""
        if budget < 0:
            return first
        allowed = self.seconds[a][first] + budget
        by_time = bisect_right(self.seconds[a], allowed * (1 + _ROUNDING)) - 1
        held = self.bytes[a][first] + self.types[a].memory
        by_memory = bisect_right(self.bytes[a], held * (1 + _ROUNDING)) - 1
        return max(first, min(by_time, by_memory))

    def stage_times(self) -> list[Seconds]:
        """Every time that a stage can take, sorted."""
        found = []
        for a in range(len(self.types)):
            held = np.asarray(self.bytes[a])
            fits = held[None, :] <= (held[:, None] + self.types[a].memory) * (1 + _ROUNDING)
            fits &= np.arange(len(held))[None, :] > np.arange(len(held))[:, None]
            until = np.asarray(self.seconds[a])
            spans = np.unique((until[None, :] - until[:, None])[fits])
            found += [spans + send for send in set(self.send[a])]
        times = np.unique(np.concatenate(found)) if found else np.zeros(0)
        # Sums of equal layers differ in their last digits; of each such cluster the largest stands for all.
        apart = np.append(np.diff(times) > _ROUNDING * times[1:], True) if len(times) else np.zeros(0, dtype=bool)
        return [float(t) for t in times[apart]]

    def cheapest(self, bottleneck: Seconds) -> Partition | None:
        """Least-price pipeline within the bottleneck, by layers of device counts.

        A stage should hold as many layers as it can: whoever comes after it can only gain. So a state (devices
        used, type of the last stage) needs only the furthest layer at which that stage can start.
        """
        start: dict[tuple[tuple[int, ...], int], int] = {}
        before: dict[tuple[tuple[int, ...], int], tuple[tuple[int, ...], int]] = {}
        none = (0,) * len(self.types)
        for a in range(len(self.types)):
            start[_plus(none, a), a] = 0
        best: tuple[float, tuple[tuple[int, ...], int]] | None = None
        wave = list(start)
        while wave:
            following: dict[tuple[tuple[int, ...], int], None] = {}
            for state in wave:
                used, a = state
                price = sum(n * t.price for n, t in zip(used, self.types, strict=True))
                if best is not None and price >= best[0]:
                    continue
                if self.reach(a, start[state], bottleneck) == self.layers:
                    best = (price, state)
                    continue
                for b, kind in enumerate(self.types):
                    end = self.reach(a, start[state], bottleneck - self.send[a][b])
                    after = (_plus(used, b), b)
                    if used[b] < kind.count and end > start[state] and end > start.get(after, -1):
                        start[after], before[after] = end, state
                        following[after] = None
            wave = list(following)
        return None if best is None else self._trace(best[1], best[0], start, before)

    def _trace(
        self,
        state: tuple[tuple[int, ...], int],
        price: float,
        start: Mapping[tuple[tuple[int, ...], int], int],
        before: Mapping[tuple[tuple[int, ...], int], tuple[tuple[int, ...], int]],
    ) -> Partition:
        stages: list[Stage] = []
        end, following = self.layers, len(self.types)
        while True:
            a, first = state[1], start[state]
            seconds = self.seconds[a][end] - self.seconds[a][first] + self.send[a][following]
            stages.append(Stage(self.types[a].id, first, end, seconds))
            if state not in before:
                break
            end, following, state = first, a, before[state]
        stages.reverse()
        return Partition(tuple(stages), max(s.seconds for s in stages), price)


def _plus(used: tuple[int, ...], index: int) -> tuple[int, ...]:
    return tuple(n + (i == index) for i, n in enumerate(used))
