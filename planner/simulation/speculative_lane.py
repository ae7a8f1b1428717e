"""A decode batch whose sequences gain several tokens per iteration, by the luck of their drafts."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from planner.simulation.lane import Lane
from planner.simulation.request import Request
from planner.simulation.settings import Drafts

_NORMAL = NormalDist()
_FEW = 8  # members up to which a loop is faster than arrays


def steps_needed(tokens: int, drafts: Drafts, quantile: float) -> int:
    """Iterations in which a request gets ``tokens`` tokens, at a quantile of their distribution.

    A renewal count: mean L/E and variance L*V/E^3 for tokens of mean E and variance V per iteration, normal for many;
    never fewer than with every draft accepted, never more than with none.
    """
    if tokens <= 0:
        return 0
    mean = tokens / drafts.mean
    deviation = math.sqrt(tokens * drafts.variance / drafts.mean**3)
    z = _NORMAL.inv_cdf(min(max(quantile, 1e-4), 1 - 1e-4))
    # Half an iteration more on average: tokens beyond the last one of a request are thrown away.
    drawn = round(mean + z * deviation + 0.5 * (1.0 - 1.0 / drafts.mean))
    return min(max(drawn, -(-tokens // drafts.checked)), tokens)


class SpeculativeLane(Lane):
    """As a Lane, but a request that joins with r tokens to go leaves after as many iterations as its drafts take.

    ``finish_at`` counts iterations; between joining and leaving tokens come evenly, rounded down to whole ones, so that
    blocks and contexts add up to the very tokens that a request has in the end.
    """

    __slots__ = ("_answer", "_asked", "_changes", "_columns", "_numbers", "_pace", "drafts")

    def __init__(self, block: int, drafts: Drafts) -> None:
        super().__init__(block)
        self.drafts = drafts
        # One column a member: private tokens in the cache and tokens to come at joining, iterations for them, count at
        # joining; and whose column it is.
        self._columns = np.empty((4, 16), dtype=np.int64)
        self._numbers: list[int] = []
        self._changes = 0  # members that came and went
        self._asked, self._answer = (0, 0, 0), (0, 0)  # the last of ``_gained``, and for which state
        self._pace = 0.0

    @property
    def pace(self) -> float:
        """See Lane."""
        return self._pace

    def steps_left(self, request: Request) -> int:
        """See Lane."""
        return steps_needed(request.output - request.generated, self.drafts, request.quantile)

    def join(self, request: Request, private_tokens: int) -> None:
        """See Lane."""
        super().join(request, private_tokens)
        left, steps = request.output - request.generated, request.finish_at - self.count
        number = len(self._numbers)
        if number == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.empty_like(self._columns)], axis=1)
        self._columns[:, number] = private_tokens - 1, left, steps, self.count
        self._numbers.append(request.number)
        self._changes += 1
        self._pace += left / steps

    def generated_by(self, request: Request) -> int:
        """See Lane."""
        _, left, steps, joined = self._columns[:, self._numbers.index(request.number)].tolist()
        return int(request.output - left + left * min(self.count - joined, steps) // steps)

    def advance(self, iterations: int) -> int:
        """See Lane."""
        tokens, _ = self._gained(iterations)
        self.count += iterations
        self.context += tokens
        self.to_come -= tokens
        return tokens

    def most_growth(self, iterations: int) -> int:
        """See Lane."""
        return self.sequences * (iterations * self.drafts.checked // self.block + 1)

    def growth(self, iterations: int) -> int:
        """See Lane."""
        return self._gained(iterations)[1]

    def _gained(self, iterations: int) -> tuple[int, int]:
        """Tokens of all members in the next ``iterations``, and blocks that these begin; asked more than once."""
        state = (self.count, self._changes, iterations)
        if state != self._asked:
            few = len(self._numbers) <= _FEW
            self._asked, self._answer = state, (self._one_by_one if few else self._at_once)(iterations)
        return self._answer

    def _at_once(self, iterations: int) -> tuple[int, int]:
        held, left, steps, joined = self._columns[:, : len(self._numbers)]
        done, last = self.count - joined, self.block - 1
        now = left * np.minimum(done, steps) // steps
        later = left * np.minimum(done + iterations, steps) // steps
        begun = (held + later + last) // self.block - (held + now + last) // self.block
        return int((later - now).sum()), int(begun.sum())

    def _one_by_one(self, iterations: int) -> tuple[int, int]:
        """The same where arrays would take longer."""
        count, block, last, tokens, blocks = self.count, self.block, self.block - 1, 0, 0
        for held, left, steps, joined in self._columns[:, : len(self._numbers)].T.tolist():
            done = count - joined
            now = left * min(done, steps) // steps
            later = left * min(done + iterations, steps) // steps
            tokens += later - now
            blocks += (held + later + last) // block - (held + now + last) // block
        return tokens, blocks

    def _forget(self, request: Request) -> None:
        super()._forget(request)
        column, last = self._numbers.index(request.number), len(self._numbers) - 1
        _, left, steps, _ = self._columns[:, column].tolist()
        self._columns[:, column], self._numbers[column] = self._columns[:, last], self._numbers[last]
        self._numbers.pop()
        self._changes += 1
        self._pace = self._pace - left / steps if self._numbers else 0.0
