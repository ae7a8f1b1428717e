"""A decode batch whose sequences gain several tokens per iteration, by the luck of their drafts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from planner.simulation.lane import Lane
from planner.simulation.request import Request
from planner.simulation.settings import Drafts

_NORMAL = NormalDist()


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

    __slots__ = ("_pace", "drafts", "members")

    def __init__(self, block: int, drafts: Drafts) -> None:
        super().__init__(block)
        self.drafts = drafts
        # By number: private tokens in the cache and tokens to come at joining, iterations for them, count at joining.
        self.members: dict[int, tuple[int, int, int, int]] = {}
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
        self.members[request.number] = (private_tokens - 1, left, steps, self.count)
        self._pace += left / steps

    def generated_by(self, request: Request) -> int:
        """See Lane."""
        _, left, steps, joined = self.members[request.number]
        return request.output - left + _gained(left, steps, self.count - joined)

    def advance(self, iterations: int) -> int:
        """See Lane."""
        tokens = 0
        for _, left, steps, done in self._done():
            tokens += _gained(left, steps, done + iterations) - _gained(left, steps, done)
        self.count += iterations
        self.context += tokens
        self.to_come -= tokens
        return tokens

    def most_growth(self, iterations: int) -> int:
        """See Lane."""
        return self.sequences * (iterations * self.drafts.checked // self.block + 1)

    def growth(self, iterations: int) -> int:
        """See Lane."""
        block, blocks = self.block, 0
        for held, left, steps, done in self._done():
            before = held + _gained(left, steps, done)
            after = held + _gained(left, steps, done + iterations)
            blocks += -(-after // block) - -(-before // block)
        return blocks

    def _done(self) -> Iterator[tuple[int, int, int, int]]:
        count = self.count
        return ((held, left, steps, count - joined) for held, left, steps, joined in self.members.values())

    def _forget(self, request: Request) -> None:
        super()._forget(request)
        _, left, steps, _ = self.members.pop(request.number)
        self._pace = self._pace - left / steps if self.members else 0.0


def _gained(left: int, steps: int, done: int) -> int:
    """Tokens after ``done`` of ``steps`` iterations that bring ``left``."""
    return left * min(done, steps) // steps
