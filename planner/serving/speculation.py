"""Speculative decoding: a draft of k tokens, verified in one iteration of the target.

With acceptance a per position a cycle yields E = (1 - a^(k+1))/(1 - a) tokens (Leviathan et al., arXiv 2211.17192,
equation 1; a rate by position replaces the powers with products). It takes k draft steps and one iteration that carries
k+1 tokens per request but reads each cache once:

  TPOT = (k * t_draft(B) + t_verify(B, k)) / E

At small batches t_verify is close to D(B), so drafting pays; at large ones every drafted token costs its share of the
matrices, and the best length falls to 0 (the goodput view of SmartSpec, arXiv 2406.14066).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.iteration import Work, iteration_ledger
from planner.serving.layout import Array, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica

_PER_REQUEST = ("attention decode", "sparse indexer")


@dataclass(frozen=True, slots=True)
class Draft:
    """What proposes tokens.

    ``acceptance`` by position, the last value going on; ``relative_cost`` seconds of a draft step over those of a
    target iteration (0 n-gram, about 1/layers an MTP layer or EAGLE head, that of its own model otherwise);
    ``longest`` most tokens ahead.
    """

    acceptance: tuple[float, ...]
    relative_cost: float
    longest: int = 8

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.acceptance or not all(0 <= a <= 1 for a in self.acceptance):
            raise ValueError("expected acceptance rates of 0 to 1")
        if self.relative_cost < 0 or self.longest < 1:
            raise ValueError("expected a relative cost of at least 0 and a longest draft of at least 1")

    def tokens(self, length: int) -> float:
        """Expected tokens of a cycle that drafts ``length``: the accepted prefix and one from the target."""
        rates = [self.acceptance[min(i, len(self.acceptance) - 1)] for i in range(length)]
        return 1.0 + float(np.cumprod(rates).sum()) if rates else 1.0


def mtp_draft(replica: Replica, acceptance: Sequence[float], longest: int = 8) -> Draft:
    """A multi-token-prediction layer: one layer of the target per drafted token."""
    return Draft(tuple(acceptance), 1.0 / len(replica.model.layers), longest)


def verify_seconds(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths, length: int) -> Array:
    """Seconds of an iteration that checks ``length`` drafted tokens per request: matrices and messages see all of
    them, a cache is read once per request."""
    running = floats(batch) / layouts.pp
    wide = iteration_ledger(replica, layouts, Work(running * (length + 1.0), lengths.decode_context)).seconds
    plain = iteration_ledger(replica, layouts, Work(running, lengths.decode_context)).seconds
    return np.asarray(sum((plain if name in _PER_REQUEST else wide)[name] for name in wide))


def speculative_tpot(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths, draft: Draft) -> Array:
    """TPOT by draft length, [longest + 1, ...]; row 0 drafts nothing and is the plain iteration."""
    rows = []
    plain = verify_seconds(replica, layouts, batch, lengths, 0)
    for length in range(draft.longest + 1):
        cycle = verify_seconds(replica, layouts, batch, lengths, length) + length * draft.relative_cost * plain
        rows.append(cycle / draft.tokens(length))
    return np.stack(rows)


def best_length(replica: Replica, layouts: Layouts, batch: ArrayLike, lengths: Lengths, draft: Draft) -> Array:
    """Draft length with the lowest TPOT at each operating point."""
    return np.asarray(speculative_tpot(replica, layouts, batch, lengths, draft).argmin(axis=0))
