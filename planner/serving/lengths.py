"""Tokens of a request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.layout import Array, BoolArray, floats


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a request: prompt ``isl`` of which ``cached`` lie in the prefix cache, and output ``osl``.
    Scalars or arrays.
    """

    isl: ArrayLike
    osl: ArrayLike
    cached: ArrayLike = 0.0

    def column(self, rows: int) -> Lengths:
        """The same for ``rows`` rows as columns [rows, 1]."""
        return Lengths(*(np.broadcast_to(floats(x), (rows,))[:, None] for x in (self.isl, self.osl, self.cached)))

    @property
    def new(self) -> Array:
        """Prompt tokens to prefill, at least one: the last token is always computed."""
        return np.maximum(floats(self.isl) - floats(self.cached), 1.0)

    @property
    def decodes(self) -> Array:
        """Decode iterations of a request: the first token comes from the prefill."""
        return np.maximum(floats(self.osl) - 1.0, 1.0)

    @property
    def single_token(self) -> BoolArray:
        """Whether the answer is one token, so that there is no decode at all."""
        return np.asarray(floats(self.osl) <= 1.0)

    @property
    def decode_context(self) -> Array:
        """Mean KV length over the decode of a request."""
        return floats(self.isl) + floats(self.osl) / 2

    @property
    def total(self) -> Array:
        """Tokens held when the request ends."""
        return floats(self.isl) + floats(self.osl)
