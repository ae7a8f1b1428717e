"""Infeasible is a value: why candidates fell out, how many, and which came nearest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rejected:
    """One candidate that does not work: the ``reason`` class, what it ``need``s and what there is (``have``),
    as text.

    ``excess`` orders near misses: need/have - 1, smaller is nearer.
    """

    reason: str
    candidate: str
    need: str
    have: str
    excess: float = float("inf")

    def __str__(self) -> str:
        return f"{self.candidate}: needs {self.need}, has {self.have}"


def rows_of(ledgers: Iterable[Rejections]) -> list[tuple[str, int, str]]:
    """Rows of several ledgers as of one."""
    whole = Rejections()
    for ledger in ledgers:
        whole.merge(ledger)
    return whole.rows()


@dataclass(slots=True)
class Rejections:
    """The ledger: counts by reason, and the nearest miss of each."""

    counts: dict[str, int] = field(default_factory=dict)
    nearest: dict[str, Rejected] = field(default_factory=dict)

    def add(self, rejected: Rejected, count: int = 1) -> None:
        """Count ``rejected`` (``count`` candidates alike) and keep it if it is the nearest miss of its reason."""
        self.counts[rejected.reason] = self.counts.get(rejected.reason, 0) + count
        best = self.nearest.get(rejected.reason)
        if best is None or (rejected.excess, str(rejected)) < (best.excess, str(best)):
            self.nearest[rejected.reason] = rejected

    def merge(self, other: Rejections) -> None:
        """Add the counts and nearest misses of another ledger."""
        for reason, rejected in other.nearest.items():
            self.add(rejected, other.counts[reason])

    def rows(self) -> list[tuple[str, int, str]]:
        """(reason, count, nearest miss), most frequent first; equal counts by name."""
        order = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return [(reason, self.counts[reason], str(self.nearest[reason])) for reason in order]
