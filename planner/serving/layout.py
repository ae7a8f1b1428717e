"""How one replica is split over GPUs, as arrays: one element per candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Indices = NDArray[np.intp]


def floats(value: ArrayLike) -> Array:
    """Return ``value`` as an array of floats."""
    return np.asarray(value, dtype=np.float64)


def distinct(*columns: Array) -> tuple[Indices, Indices]:
    """Rows that differ in any of ``columns`` [rows or 1, any], and for every row the position of its like among them.

    Operators cost by the element, and many rows of a search ask the same. Numbers that agree to ten digits count as
    equal: products in another order end in other last bits.
    """
    rows = max(len(column) for column in columns)
    mantissa, exponent = np.frexp(np.concatenate([np.broadcast_to(c, (rows, c.shape[1])) for c in columns], axis=1))
    key = np.ldexp(np.round(np.ldexp(mantissa, 33)), exponent)
    first: dict[bytes, int] = {}
    like = np.array([first.setdefault(row.tobytes(), len(first)) for row in key], dtype=np.intp)
    return np.unique(like, return_index=True)[1], like


class Layout(NamedTuple):
    """One split: attention tensor-parallel width, attention data-parallel width, pipeline stages, expert
    parallel width, context-parallel width. Experts are tensor-parallel over tp*attention_dp*cp/ep."""

    tp: int = 1
    attention_dp: int = 1
    pp: int = 1
    ep: int = 1
    cp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.attention_dp * self.pp * self.cp

    @property
    def sends_to_experts(self) -> bool:
        """Whether ranks with tokens of their own send them to experts that lie over all ranks, each on one."""
        ranks = self.tp * self.attention_dp * self.cp
        return ranks > self.tp and self.ep == ranks

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
    cp: Array = field(default_factory=lambda: np.ones(1))

    @classmethod
    def of(cls, layouts: Iterable[Layout], *, column: bool = True) -> Layouts:
        """Stack ``layouts``; as a column [n, 1] to broadcast over a row of batches, or flat [n]."""
        table = np.array([tuple(x) for x in layouts], dtype=float).reshape(-1, 5)
        columns = [table[:, i : i + 1] if column else table[:, i] for i in range(5)]
        return cls(*columns)

    def column(self) -> Layouts:
        """The same rows as a column [n, 1]."""
        return Layouts(*(x.reshape(-1, 1) for x in (self.tp, self.attention_dp, self.pp, self.ep, self.cp)))

    @property
    def token_groups(self) -> Array:
        """Groups of ranks that hold different tokens: attention data parallelism and context parallelism."""
        return self.attention_dp * self.cp

    @property
    def send_to_experts(self) -> BoolArray:
        """`Layout.sends_to_experts` of each."""
        return np.asarray((self.token_groups > 1) & (self.ep == self.tp * self.token_groups))

    @property
    def long(self) -> bool:
        """Whether any layout cuts contexts."""
        return bool(np.any(self.cp > 1))

    @property
    def gpus(self) -> Array:
        """GPUs of one replica, same shape as the members."""
        return self.tp * self.attention_dp * self.pp * self.cp

    @property
    def expert_tp(self) -> Array:
        """Ranks that share one expert's matrices."""
        return self.tp * self.attention_dp * self.cp / self.ep
