"""Weighted histogram of positive times with logarithmic bins: bounded memory for billions of tokens."""

from __future__ import annotations

import math

_RATIO = 1.002  # width of a bin: percentiles are interpolated inside it, so their error is below 0.2 %
_LOG = math.log(_RATIO)
_SMALLEST = 0.97e-7  # seconds; not a round number, so that round times do not fall on an edge


class TimeHistogram:
    """Counts of times above 0.1 us, exact sum and count; an arithmetic series is added in one call."""

    __slots__ = ("bins", "count", "total")

    def __init__(self) -> None:
        self.bins: dict[int, float] = {}
        self.count = 0
        self.total = 0.0

    def add(self, value: float, weight: int = 1) -> None:
        """Add ``weight`` samples of ``value`` (s)."""
        key = int(math.log(value / _SMALLEST) / _LOG) if value > _SMALLEST else 0
        self.bins[key] = self.bins.get(key, 0) + weight
        self.count += weight
        self.total += value * weight

    def add_series(self, first: float, slope: float, length: int, weight: int) -> None:
        """Add first, first + slope, ... (``length`` terms, slope >= 0), each ``weight`` times."""
        last = first + slope * (length - 1)
        low = int(math.log(first / _SMALLEST) / _LOG) if first > _SMALLEST else 0
        high = int(math.log(last / _SMALLEST) / _LOG) if last > _SMALLEST else 0
        bins = self.bins
        self.count += length * weight
        self.total += weight * (length * first + slope * (0.5 * length * (length - 1)))
        done = 0
        for key in range(low, high):  # terms below the upper edge of each bin but the last
            below = math.ceil((_SMALLEST * math.exp(_LOG * (key + 1)) - first) / slope)
            upto = min(length, max(done, below))
            if upto > done:
                bins[key] = bins.get(key, 0) + (upto - done) * weight
            done = upto
        if length > done:
            bins[high] = bins.get(high, 0) + (length - done) * weight

    def quantile(self, share: float) -> float:
        """Time below which ``share`` of the weight lies (s); nan when empty."""
        if not self.count:
            return math.nan
        target, below = share * self.count, 0.0
        for key in sorted(self.bins):
            weight = self.bins[key]
            if below + weight >= target:
                inside = (target - below) / weight
                return _SMALLEST * math.exp(_LOG * (key + inside))
            below += weight
        return _SMALLEST * math.exp(_LOG * (max(self.bins) + 1))

    @property
    def mean(self) -> float:
        """Mean (s); nan when empty."""
        return self.total / self.count if self.count else math.nan
