"""How one replica is split over GPUs, as arrays: one element per candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def floats(value: ArrayLike) -> Array:
    """Return ``value`` as an array of floats."""
    return np.asarray(value, dtype=np.float64)


class Layout(NamedTuple):
    """One split: attention tensor-parallel width, attention data-parallel width, pipeline stages, expert
    parallel width, context-parallel width. Experts are tensor-parallel over tp*attention_dp/ep."""

    tp: int = 1
    attention_dp: int = 1
    pp: int = 1
    ep: int = 1
    cp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.attention_dp * self.pp * self.cp

    def __str__(self) -> str:
        names = ("tp", "dp", "pp", "ep", "cp")
        parts = [f"{name}{value}" for name, value in zip(names, self, strict=True) if value > 1]
        return " ".join(parts) or "tp1"


@dataclass(frozen=True, slots=True)
class Layouts:
    """Many layouts as float arrays that broadcast against batch sizes; ``Layouts.of`` gives shape [n, 1]."""

    tp: Array
    attention_dp: Array
    pp: Array
    ep: Array

    @classmethod
    def of(cls, layouts: Iterable[Layout], *, column: bool = True) -> Layouts:
        """Stack ``layouts``; as a column [n, 1] to broadcast over a row of batches, or flat [n]."""
        table = np.array([(x.tp, x.attention_dp, x.pp, x.ep) for x in layouts], dtype=float).reshape(-1, 4)
        columns = [table[:, i : i + 1] if column else table[:, i] for i in range(4)]
        return cls(*columns)

    def column(self) -> Layouts:
        """The same rows as a column [n, 1]."""
        return Layouts(*(x.reshape(-1, 1) for x in (self.tp, self.attention_dp, self.pp, self.ep)))

    @property
    def gpus(self) -> Array:
        """GPUs of one replica, same shape as the members."""
        return self.tp * self.attention_dp * self.pp

    @property
    def expert_tp(self) -> Array:
        """Ranks that share one expert's matrices."""
        return self.tp * self.attention_dp / self.ep
