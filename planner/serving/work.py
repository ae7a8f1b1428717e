"""What one iteration does, and the ledger of its seconds by operator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.layout import Array


@dataclass(frozen=True, slots=True)
class Work:
    """What one iteration does on ONE attention data-parallel rank. Members broadcast against the layouts.

    Attributes
    ----------
    sequences : running decodes, one token each.
    context : mean KV tokens that a decode reads.
    chunk : prompt tokens prefilled.
    prefix : mean tokens already cached in front of the chunk.
    prompts : prompts that the chunk tokens belong to.
    prefilling : attention ranks that carry such a chunk at the same time, 0 for all of them; the others decode only.
    drafted : further tokens of each decode, drafted and checked in the same pass (speculation).
    quantised : whether inputs of feed-forward blocks arrive in the precision of their arithmetic.
    one_sample : only one token of each decode goes through the head, whatever is ``drafted``.
    """

    sequences: ArrayLike = 0.0
    context: ArrayLike = 0.0
    chunk: ArrayLike = 0.0
    prefix: ArrayLike = 0.0
    prompts: ArrayLike = 1.0
    prefilling: ArrayLike = 0.0
    drafted: float = 0.0
    quantised: bool = False
    one_sample: bool = False


@dataclass(slots=True)
class Ledger:
    """Seconds by operator; ``total`` is their sum."""

    seconds: dict[str, Array] = field(default_factory=lambda: defaultdict(lambda: np.zeros(1)))

    def add(self, name: str, seconds: Array, times: float | Array = 1.0) -> None:
        """Add ``times * seconds`` under ``name``."""
        self.seconds[name] = self.seconds[name] + seconds * times

    @property
    def total(self) -> Array:
        """All of it, broadcast to the common shape."""
        return np.asarray(sum(self.seconds.values(), start=np.zeros(1)))

    def shares(self) -> Mapping[str, Array]:
        """Seconds by operator, largest shapes last."""
        return dict(self.seconds)
