"""Speculative decoding: a draft of k tokens, verified in one iteration of the target.

A step drafts k tokens and checks all of them at once. With acceptance a_i at position i, given that position i-1 was
accepted, it yields E = 1 + sum_i prod_{j<=i} a_j tokens; for equal rates (1 - a^(k+1))/(1 - a) (Leviathan et al., arXiv
2211.17192, equation 1). It costs the drafting passes and one iteration that carries k+1 tokens per request but reads
each cache once:

  TPOT = (t_draft(B, k) + t_verify(B, k)) / E

At small batches t_verify is close to a plain iteration, so drafting pays; at large ones every drafted token costs its
share of the matrices, of the experts that it wakes and of the messages, and the best length falls to 0 (the goodput
view of SmartSpec, arXiv 2406.14066).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.catalog.files import catalog_root
from planner.errors import InputError
from planner.job.speculating import Method

if TYPE_CHECKING:
    from planner.serving.replica import Replica

LENGTHS = (1, 2, 3, 5)
"""Draft lengths that a search looks at beside 0."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Rates by position, each given the one before, the last going on; ``low`` and ``high`` what they may be instead
    (the same rates where the user gave them), with the ``source`` of all three."""

    rates: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    source: str = "given"

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.rates or not all(0 <= a <= 1 for a in self.rates):
            raise ValueError("expected acceptance rates of 0 to 1")

    def reached(self, length: int) -> NDArray[np.float64]:
        """Chance that the draft is accepted up to each of ``length`` positions."""
        return np.cumprod([self.rates[min(i, len(self.rates) - 1)] for i in range(length)], dtype=np.float64)

    def tokens(self, length: int) -> float:
        """Expected tokens of a step that drafts ``length``: the accepted prefix and one from the target."""
        return 1.0 + float(self.reached(length).sum()) if length else 1.0

    def variance(self, length: int) -> float:
        """Variance of the tokens of a step: E[N^2] = sum (2i - 1) P(N >= i) for N accepted ones."""
        if not length:
            return 0.0
        reached = self.reached(length)
        square = float(((2 * np.arange(1, length + 1) - 1) * reached).sum())
        return max(square - float(reached.sum()) ** 2, 0.0)

    def span(self, length: int) -> tuple[float, float]:
        """Tokens of a step at the low and the high end, over those expected."""
        middle = self.tokens(length)
        ends = [middle if rate is None else Acceptance((rate,)).tokens(length) for rate in (self.low, self.high)]
        return min(ends[0] / middle, 1.0), max(ends[1] / middle, 1.0)


@dataclass(frozen=True)
class Speculation:
    """How a replica drafts.

    Attributes
    ----------
    tokens : drafted per step and request, at least 1.
    draft : what computes them, as a replica on the same GPUs; None where nothing is computed (n-grams).
    joined : hidden states that the draft folds into one before its first layer (2: embedding and hidden state of an
        MTP layer; 4: three hidden states and the embedding of an EAGLE-3 head); 0 for a model of its own.
    rejoined : the same of each further pass (None: as many): an EAGLE-3 head goes on from its own hidden state, which
        needs no fold, beside the embedding (arXiv 2503.01840).
    own_embedding, own_head : whether the draft holds these tables beside those of the target.
    name : of the draft model, for a plan.
    """

    method: Method
    tokens: int
    acceptance: Acceptance
    draft: Replica | None = None
    joined: int = 0
    rejoined: int | None = None
    own_embedding: bool = False
    own_head: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.tokens < 1:
            raise ValueError("expected a draft of at least one token")

    @property
    def tokens_per_step(self) -> float:
        """Expected tokens of a step."""
        return self.acceptance.tokens(self.tokens)

    @property
    def variance(self) -> float:
        """Variance of the tokens of a step."""
        return self.acceptance.variance(self.tokens)

    def __str__(self) -> str:
        return f"{self.method}{self.tokens}"


def default_acceptance(method: Method, extra: Sequence[Path] = ()) -> Acceptance:
    """Rates of the catalog for a method; folders of the user come first. Raises InputError for a broken file."""
    row = _table(tuple(extra)).get(method)
    if row is None:
        raise InputError(f"no acceptance is known of {method!r}", hint="give it with --acceptance")
    try:
        low, high = (float(rate) for rate in row["band"])
        return Acceptance(tuple(float(rate) for rate in row["acceptance"]), low, high, str(row["source"]))
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"speculation/acceptance.toml, {method}: {problem}") from None


@lru_cache(maxsize=16)
def _table(extra: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for folder in (catalog_root("hardware_catalog"), *extra):
        path = folder / "speculation" / "acceptance.toml"
        if path.is_file():
            try:
                merged |= tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as problem:
                raise InputError(f"{path}: {problem}") from None
    return merged
