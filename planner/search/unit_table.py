"""Which units of two GPU types are worth having: best rate by GPUs, without what smaller units replace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Generic, TypeVar

import numpy as np

from planner.serving.layout import Array

Unit = TypeVar("Unit")

WORTH = 0.003
"""A unit is worth having when it carries this much more than smaller units on the same GPUs."""


class UnitTable(Generic[Unit]):
    """Requests/s of the best unit by GPUs of two types [first, second] up to ``most`` of each."""

    def __init__(self, most: int) -> None:
        self.rates = np.zeros((most + 1, most + 1))
        self.units: dict[tuple[int, int], Unit] = {}

    def offer(self, cell: tuple[int, int], rate: float, unit: Unit | None = None) -> bool:
        """Note a unit where it is better than what is known by more than ``WORTH``; one without a name only sets the
        mark that others must pass."""
        if rate <= self.rates[cell] * (1 + (0.0 if unit is None else WORTH)):
            return False
        self.rates[cell] = rate
        if unit is None:
            self.units.pop(cell, None)
        else:
            self.units[cell] = unit
        return True

    def closed(self) -> Array:
        """Best rate by GPUs, whatever it is made of."""
        best = np.zeros_like(self.rates)
        for cell, split in self._splits(best):
            best[cell] = max(split, self.rates[cell])
        return best

    def worthwhile(self) -> list[Unit]:
        """Units that no two smaller ones replace, in the order of their GPUs."""
        best, kept = np.zeros_like(self.rates), []
        for cell, split in self._splits(best):
            best[cell] = max(split, self.rates[cell])
            if cell in self.units and self.rates[cell] > split * (1 + WORTH):
                kept.append(self.units[cell])
        return kept

    def _splits(self, best: Array) -> Iterator[tuple[tuple[int, int], float]]:
        """By rising GPUs, what two parts that are already in ``best`` carry together."""
        for x, y in product(*(range(n) for n in best.shape)):
            parts = best[: x + 1, : y + 1]
            yield (x, y), float((parts + parts[::-1, ::-1]).max())
