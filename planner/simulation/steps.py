"""What the simulation asks of a cost model: the time of one engine iteration. Imports nothing of planner."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class PiecewiseAffine:
    """A continuous, non-decreasing, piecewise affine function of the total KV tokens that are read.

    Parameters
    ----------
    knots : ascending totals (tokens), at least one; the first piece also holds below the first knot.
    seconds : value at each knot (s).
    last_slope : seconds per token beyond the last knot.
    """

    knots: tuple[float, ...]
    seconds: tuple[float, ...]
    last_slope: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a function that is not one: unequal lengths, knots that do not ascend, falling time."""
        pairs = list(zip(self.knots, self.knots[1:], self.seconds, self.seconds[1:], strict=False))
        if not self.knots or len(self.knots) != len(self.seconds):
            raise ValueError("expected as many seconds as knots, at least one")
        if self.last_slope < 0 or any(b <= a or y < x for a, b, x, y in pairs):
            raise ValueError("expected ascending knots and non-decreasing seconds")

    def __call__(self, tokens: float) -> float:
        """Seconds at ``tokens``."""
        x, y = self.knots, self.seconds
        i = max(0, bisect_right(x, tokens) - 1)
        slope = self.last_slope if i + 1 == len(x) else (y[i + 1] - y[i]) / (x[i + 1] - x[i])
        return y[i] + slope * (tokens - x[i])


class Curve(NamedTuple):
    """A PiecewiseAffine with the slope of each piece: what the hot path reads."""

    knots: tuple[float, ...]
    seconds: tuple[float, ...]
    slopes: tuple[float, ...]


def compile_curve(function: PiecewiseAffine) -> Curve:
    """Add the slopes: (y_{i+1} - y_i) / (x_{i+1} - x_i), then the last one."""
    x, y = function.knots, function.seconds
    slopes = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)]
    # Plain floats: NumPy scalars would slow every iteration down.
    return Curve(tuple(map(float, x)), tuple(map(float, y)), (*map(float, slopes), float(function.last_slope)))


class StepModel(Protocol):
    """Iteration times of one attention rank of a replica, and the limits of that rank."""

    @property
    def kv_tokens(self) -> int:
        """KV capacity of one attention rank (tokens)."""
        ...

    @property
    def max_sequences(self) -> int:
        """Most sequences that one rank runs at once."""
        ...

    def decode_steps(self, sequences: int) -> PiecewiseAffine:
        """Time of a pure decode iteration of ``sequences`` sequences over the total context they read."""
        ...

    def mixed(
        self, sequences: int, context_tokens: float, chunk_tokens: int, chunk_pairs: float, carrying: float = 1.0
    ) -> float:
        """Time of an iteration that also prefills (s).

        Parameters
        ----------
        sequences, context_tokens : the decoding sequences (may be 0) and the sum of their contexts.
        chunk_tokens : prompt tokens of this iteration.
        chunk_pairs : query-key pairs of the chunk: the sum over its tokens of the context each attends to.
        carrying : prompt tokens of all ranks of the replica in this iteration over those of this one.
        """
        ...


@dataclass(frozen=True, slots=True)
class AffineSteps:
    """A synthetic model: base + per_sequence*b + per_token*max(0, C - hidden_tokens) + per_chunk_token*c + per_pair*q.

    ``hidden_tokens`` puts a knot into the curve: that much KV is read in the shadow of the weights.
    The defaults resemble an 8B model in 8 bits on one H100-class GPU.
    """

    base: float = 4e-3
    per_sequence: float = 15e-6
    per_token: float = 3.2e-8
    per_chunk_token: float = 1.8e-5
    per_pair: float = 2e-10
    hidden_tokens: float = 0.0
    kv_tokens: int = 480_000
    max_sequences: int = 256

    def decode_steps(self, sequences: int) -> PiecewiseAffine:
        """See StepModel."""
        start = self.base + self.per_sequence * sequences
        if self.hidden_tokens <= 0:
            return PiecewiseAffine((0.0,), (start,), self.per_token)
        return PiecewiseAffine((0.0, self.hidden_tokens), (start, start), self.per_token)

    def mixed(
        self, sequences: int, context_tokens: float, chunk_tokens: int, chunk_pairs: float, carrying: float = 1.0
    ) -> float:
        """See StepModel; ranks share nothing here."""
        read = max(0.0, context_tokens - self.hidden_tokens)
        step = self.base + self.per_sequence * sequences + self.per_token * read
        return step + self.per_chunk_token * chunk_tokens + self.per_pair * chunk_pairs
