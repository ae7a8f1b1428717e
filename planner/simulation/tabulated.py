"""A slow, vectorised cost model as a fast StepModel: sampled once on grids, then interpolated.

The simulation asks for about one mixed iteration per request, so a model that takes a millisecond per call
would cap it at a thousand requests per second. Costs of an iteration add up over operators:

    t(b, C, c, q) = base(b, c) + [d(b, C) - d(b, b)] + [p(c, s) - p(c, 0)]

with b decodes over C tokens of context and a chunk of c tokens behind s cached ones, q = c*s + c(c+1)/2. base is
an iteration with one token of context each, d a pure decode, p a pure prefill. Interpolation is (bi)linear: exact
for costs that are affine between grid points.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from planner.simulation.steps import PiecewiseAffine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    # Seconds of iterations: sequences, total context tokens, chunk tokens, chunk query-key pairs (same shapes).
    Iteration = Callable[[Floats, Floats, Floats, Floats], Floats]


class TabulatedSteps:
    """A StepModel that interpolates ``iteration``.

    Parameters
    ----------
    iteration : vectorised seconds of an iteration of (sequences, context tokens, chunk tokens, chunk pairs).
    kv_tokens, max_sequences : see StepModel.
    chunk_tokens : largest chunk of one iteration. longest : longest context of one request (tokens).
    """

    def __init__(
        self, iteration: Iteration, *, kv_tokens: int, max_sequences: int, chunk_tokens: int, longest: int
    ) -> None:
        self._iteration = iteration
        self.kv_tokens = kv_tokens
        self.max_sequences = max_sequences
        self._sequences = [0.0, *_grid(1, max_sequences, 2)]
        # Finer: attention inside the chunk is quadratic; chords between 8 points per octave are 0.2 % above it.
        self._chunks = _grid(1, max(2, chunk_tokens), 8)
        self._prefixes = [0.0, *_grid(64, max(128, longest), 2)]
        self._contexts = _grid(1, max(2, longest), 1)
        self._curves: dict[int, PiecewiseAffine] = {}
        # Seconds of chunks that no decode rides with: prefill pools compute the same ones all the time.
        self._known: dict[tuple[int, float], float] = {}
        # Fine enough that tiles and waves of small batches are not smeared; single steps at the start.
        self._batches = _grid(1, max(2, max_sequences), 6)

    # Tables are made when they are first read: a pool that only decodes, or only prefills, never asks for all of them.

    @cached_property
    def _base(self) -> list[list[float]]:
        return self._table(self._sequences, lambda b, c: (b, b, c, c * (c + 1) / 2))

    @cached_property
    def _prefix(self) -> list[list[float]]:
        prefill = self._table(self._prefixes, lambda s, c: (0 * s, 0 * s, c, c * s + c * (c + 1) / 2))
        return [[value - first for value, first in zip(row, prefill[0], strict=True)] for row in prefill]

    def _table(
        self, rows: list[float], arguments: Callable[[Floats, Floats], tuple[Floats, Floats, Floats, Floats]]
    ) -> list[list[float]]:
        import numpy as np

        row, chunk = (axis.ravel() for axis in np.meshgrid(rows, self._chunks, indexing="ij"))
        seconds = np.asarray(self._iteration(*arguments(row, chunk)), dtype=float)
        table: list[list[float]] = seconds.reshape(len(rows), len(self._chunks)).tolist()
        return table

    @cached_property
    def _decode(self) -> list[list[float]]:
        """Seconds of pure decodes, rows by batch, columns by mean context; one call of the model for all."""
        import numpy as np

        batch, context = (axis.ravel() for axis in np.meshgrid(self._batches, self._contexts, indexing="ij"))
        none = np.zeros_like(batch)
        seconds = np.asarray(self._iteration(batch, batch * context, none, none), dtype=float)
        grid = np.maximum.accumulate(seconds.reshape(len(self._batches), len(self._contexts)), axis=1)
        table: list[list[float]] = grid.tolist()
        return table

    def decode_steps(self, sequences: int) -> PiecewiseAffine:
        """See StepModel; knots where the mean context is a point of the grid, linear between batches of the grid."""
        curve = self._curves.get(sequences)
        if curve is None:
            batches = self._batches
            i = min(len(batches) - 2, max(0, bisect_right(batches, sequences) - 1))
            share = (sequences - batches[i]) / (batches[i + 1] - batches[i])
            low, high = self._decode[i], self._decode[i + 1]
            seconds = [(1 - share) * a + share * b for a, b in zip(low, high, strict=True)]
            knots = [sequences * context for context in self._contexts]
            slope = (seconds[-1] - seconds[-2]) / (knots[-1] - knots[-2])
            curve = PiecewiseAffine(tuple(knots), tuple(seconds), slope)
            self._curves[sequences] = curve
        return curve

    def mixed(
        self, sequences: int, context_tokens: float, chunk_tokens: int, chunk_pairs: float, carrying: float = 1.0
    ) -> float:
        """See StepModel and the formula of this module; a table holds for one number of carrying ranks."""
        if sequences:
            curve = self.decode_steps(sequences)
            return self._prompts(chunk_tokens, chunk_pairs, sequences) + curve(context_tokens) - curve.seconds[0]
        alone = (chunk_tokens, chunk_pairs)
        if alone not in self._known:
            self._known[alone] = self._prompts(chunk_tokens, chunk_pairs, 0)
        return self._known[alone]

    def _prompts(self, chunk_tokens: int, chunk_pairs: float, sequences: int) -> float:
        """The chunk beside ``sequences`` decodes of one token of context each."""
        prefix = chunk_pairs / chunk_tokens - 0.5 * (chunk_tokens + 1)
        seconds = _bilinear(self._sequences, self._chunks, self._base, sequences, chunk_tokens)
        if prefix:
            # Below zero where whole prompts share the chunk: they attend to themselves only, in as much less time.
            seconds += _bilinear(self._prefixes, self._chunks, self._prefix, prefix, chunk_tokens)
        return seconds


class RankedSteps:
    """A StepModel of attention ranks that share their experts: what one of them prefills slows the others down.

    ``alone`` are the times while one rank carries prompts, ``all_ranks`` while all of ``ranks`` do, linear in between.
    """

    def __init__(self, alone: TabulatedSteps, all_ranks: TabulatedSteps, ranks: int) -> None:
        self._alone, self._all = alone, all_ranks
        self._others = ranks - 1
        self.kv_tokens, self.max_sequences = alone.kv_tokens, alone.max_sequences
        self.decode_steps = alone.decode_steps

    def mixed(
        self, sequences: int, context_tokens: float, chunk_tokens: int, chunk_pairs: float, carrying: float = 1.0
    ) -> float:
        """See StepModel."""
        work = (sequences, context_tokens, chunk_tokens, chunk_pairs)
        seconds = self._alone.mixed(*work)
        share = min((carrying - 1.0) / self._others, 1.0)
        return seconds + share * (self._all.mixed(*work) - seconds) if share > 0 else seconds


def _grid(low: int, high: int, per_octave: int) -> list[float]:
    """Whole numbers from low to high, ``per_octave`` of them (as far as they differ) from a number to its double."""
    points, step = {float(low), float(high)}, 0
    while (point := round(low * 2 ** (step / per_octave))) < high:
        points.add(float(point))
        step += 1
    return sorted(points)


def _bilinear(rows: list[float], columns: list[float], table: list[list[float]], row: float, column: float) -> float:
    """Interpolate linearly in both directions; beyond the last points the last cell is continued."""
    i = min(len(rows) - 2, max(0, bisect_right(rows, row) - 1))
    j = min(len(columns) - 2, max(0, bisect_right(columns, column) - 1))
    u = (row - rows[i]) / (rows[i + 1] - rows[i])
    v = (column - columns[j]) / (columns[j + 1] - columns[j])
    low, high = table[i], table[i + 1]
    return (1 - u) * ((1 - v) * low[j] + v * low[j + 1]) + u * ((1 - v) * high[j] + v * high[j + 1])
