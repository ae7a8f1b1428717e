"""A decode pool: prompts arrive computed, so iterations carry nothing but running requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica

_KNOTS = 24


def decode_seconds(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths) -> Array:
    """D(B): seconds per output token with ``batch`` running requests per attention rank, which is their TPOT: one
    iteration over the tokens that it yields."""
    work = Work(sequences=floats(batch) / layouts.pp, context=lengths.decode_context)
    return iteration_seconds(replica, layouts, work) / replica.tokens_per_step


def decode_rate(layouts: Layouts, batch: ArrayLike, tpot: ArrayLike, lengths: Lengths) -> Array:
    """Requests/s of one replica, by Little's law: ranks * B / ((osl-1) * D(B))."""
    return floats(batch) * layouts.attention_dp / (lengths.decodes * floats(tpot))


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """D(B) of every row [rows] on a geometric grid of batches, linear in between.

    B/D(B), what a pool emits, falls where kernels change shape for more rows: no steady state lies there, since a pool
    that a load can hold at a smaller batch never gets so far. ``settled`` steps back from such batches.
    """

    knots: Array
    seconds: Array
    peaks: Array  # of each row and knot, the index of the knot up to it that emits most

    @classmethod
    def of(cls, replica: Replica, layouts: Layouts, largest: float, lengths: Lengths) -> DecodeTable:
        """Tabulate flat ``layouts`` [rows] up to ``largest`` requests per attention rank."""
        rows = len(layouts.tp)
        knots = np.geomspace(1.0, max(largest, 2.0), _KNOTS)
        seconds = decode_seconds(replica, layouts.column(), knots[None, :], lengths.column(rows))
        return cls._of(knots, np.broadcast_to(seconds, (rows, _KNOTS)))

    @classmethod
    def tabulate(cls, seconds: Callable[[Array], Array], largest: float, rows: int) -> DecodeTable:
        """Tabulate any D(B) of ``rows`` rows; it is given the batches as a row [1, knots].

        Finer than whole replicas need it: micro-batches of many sizes climb the steps of full tiles all at once.
        """
        knots = np.geomspace(1.0, max(largest, 2.0), 4 * _KNOTS)
        return cls._of(knots, np.broadcast_to(seconds(knots[None, :]), (rows, len(knots))))

    @classmethod
    def _of(cls, knots: Array, seconds: Array) -> DecodeTable:
        emitted = knots / seconds
        leading = emitted >= np.maximum.accumulate(emitted, axis=1)
        return cls(knots, seconds, np.maximum.accumulate(np.where(leading, np.arange(len(knots)), 0), axis=1))

    def rows(self, kept: ArrayLike) -> DecodeTable:
        """Some of the rows."""
        index = np.asarray(kept, dtype=int)
        return DecodeTable(self.knots, self.seconds[index], self.peaks[index])

    def at(self, batch: Array) -> Array:
        """D at ``batch`` [rows]; below the first knot the first is taken."""
        rows = np.arange(len(self.seconds))
        right = np.minimum(np.maximum(self.knots.searchsorted(batch), 1), len(self.knots) - 1)
        left = right - 1
        low, high = self.knots[left], self.knots[right]
        share = np.minimum(np.maximum((batch - low) / (high - low), 0.0), 1.0)
        return np.asarray(self.seconds[rows, left] * (1 - share) + self.seconds[rows, right] * share)

    def settled(self, batch: Array) -> Array:
        """The batch up to ``batch`` [rows] that emits most, B/D(B): ``batch`` itself, or an earlier knot. Between knots
        D is linear, so that B/D(B) has no peak of its own there."""
        peak = self.peaks[np.arange(len(self.seconds)), np.maximum(self.knots.searchsorted(batch, side="right") - 1, 0)]
        best = np.minimum(self.knots[peak], batch)
        return np.where(batch / self.at(batch) >= best / self.at(best), batch, best)

    @property
    def alone(self) -> Array:
        """D(1) [rows]: the first knot is one request."""
        return self.seconds[:, 0]
